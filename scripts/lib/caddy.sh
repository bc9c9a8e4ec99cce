# Sourced by scripts/setup: the Caddy binary, at .local/caddy/caddy.

CADDY_LEAST=2.11.4  # the first that replays a buffered body reliably when a server cannot be dialled

is_new_enough() {  # is_new_enough BINARY
    local version
    version=$("$1" version 2>/dev/null | sed -n '1s/^v\{0,1\}\([0-9.]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n' "$CADDY_LEAST" "$version" | sort -t. -k1,1n -k2,2n -k3,3n | head -1)" = "$CADDY_LEAST" ]
}

make_caddy() {
    local found
    if [ -e .local/caddy/caddy ] && [ "$(cat .local/caddy/stamp 2>/dev/null)" = "$CADDY_LEAST" ]; then return; fi
    mkdir -p .local/caddy
    found=$(command -v caddy || true)
    if [ -n "$found" ] && is_new_enough "$found"; then
        echo "setup: Caddy: using $found"
        ln -sfn "$found" .local/caddy/caddy
    elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        echo "setup: Caddy: unpacking Debian's package -> .local/caddy (the system stays as it is)"
        unpack_debian_caddy || echo "setup: that did not work; see above" >&2
    elif command -v brew >/dev/null; then
        echo "setup: Caddy: brew install caddy"
        brew install --quiet caddy
        ln -sfn "$(brew --prefix)/bin/caddy" .local/caddy/caddy
    fi
    if ! is_new_enough .local/caddy/caddy; then
        echo "error: Caddy $CADDY_LEAST or newer is needed and could not be had from this machine's package manager: install it and put it on PATH" >&2
        return 1
    fi
    echo "$CADDY_LEAST" > .local/caddy/stamp
}

# Debian's stable releases carry an older Caddy; the one of its `sid` suite is a static binary that runs on
# any of them. apt is given lists and sources of its own, on the mirror and keyring the system already uses.
unpack_debian_caddy() {
    local apt=$PWD/.local/caddy/apt
    local options=(
        -o "Dir::Etc::SourceList=$apt/sid.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
        -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0 -o Debug::NoLocking=1
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
    )
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    write_sid_source /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} > "$apt/sid.list"
    if [ ! -s "$apt/sid.list" ]; then
        echo "setup: no Debian mirror found in this system's apt sources" >&2
        return 1
    fi
    rm -f "$apt"/*.deb
    apt-get "${options[@]}" -qq update &&
        (cd "$apt" && apt-get "${options[@]}" -qq download caddy) &&
        dpkg-deb --extract "$apt"/caddy_*.deb "$apt/unpacked" &&
        mv -f "$apt/unpacked/usr/bin/caddy" .local/caddy/caddy || return 1
    rm -rf "$apt"
}

# write_sid_source FILE...: prints one line for sources.list, with the first mirror of Debian's main archive in
# the apt sources given (a security archive has no sid), in either of apt's two formats, and with its keyring.
write_sid_source() {
    local files=()
    local file
    for file in "$@"; do
        [ -r "$file" ] && files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || return 0
    awk -v keyring=/usr/share/keyrings/debian-archive-keyring.gpg '
        function offer(uri, key) {
            if (uri ~ /\/debian(\.list)?\/?$/ && !done) {  # debian.list: a file of mirrors, as cloud images have
                printf "deb [signed-by=%s] %s sid main\n", (key ~ /^\// ? key : keyring), uri
                done = 1
            }
        }
        function end_of_stanza() { if (types ~ /(^| )deb( |$)/ && enabled != "no") offer(uris, key); types = uris = key = enabled = "" }
        FNR == 1 { end_of_stanza() }
        /^[ \t]*#/ { next }
        FILENAME ~ /\.sources$/ {
            if (/^[ \t]*$/) { end_of_stanza(); next }
            value = $0; sub(/^[^:]*:[ \t]*/, "", value)
            if (/^Types:/) types = value
            if (/^URIs:/) { split(value, each, " "); uris = each[1] }
            if (/^Signed-By:/) key = value
            if (/^Enabled:/) enabled = tolower(value)
            next
        }
        $1 == "deb" {
            key = ""
            if (match($0, /signed-by=[^] ]*/)) key = substr($0, RSTART + 10, RLENGTH - 10)
            line = $0; sub(/\[[^]]*\]/, "", line); split(line, field, " ")
            offer(field[2], key)
        }
        END { end_of_stanza() }
    ' "${files[@]}"
}
