# Sourced by scripts that take single packages from a Debian suite, which need not be this system's own.

APT_SOURCES=(/etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})

# unpack_debian_packages SUITE DIRECTORY PACKAGE...: these packages without what they depend on. apt is given
# lists and sources of its own, on the mirror and keyring the system already uses; the system stays as it is.
unpack_debian_packages() {
    local suite=$1 directory=$2 apt=$PWD/$2.apt deb
    shift 2
    local options=(
        -o "Dir::Etc::SourceList=$apt/suite.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache"
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
        -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0 -o Debug::NoLocking=1
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
    )
    rm -rf "$apt" "$directory"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$directory"
    write_suite_source "$suite" "${APT_SOURCES[@]}" > "$apt/suite.list"
    if [ ! -s "$apt/suite.list" ]; then
        echo "setup: no Debian mirror found in this system's apt sources" >&2
        return 1
    fi
    apt-get "${options[@]}" -qq update &&
        (cd "$apt" && apt-get "${options[@]}" -qq download "$@") || return 1
    for deb in "$apt"/*.deb; do dpkg-deb --extract "$deb" "$directory" || return 1; done
    rm -rf "$apt"
}

# make_debian_root SUITE TAR PACKAGE...: a root file system with these packages and what they depend on.
make_debian_root() {
    local suite=$1 tar=$2 root=$2.root source keyring mirror packages
    shift 2
    source=$(write_suite_source "$suite" "${APT_SOURCES[@]}")
    read -r _ keyring mirror _ <<<"$source"
    keyring=${keyring#*=} keyring=${keyring%]}
    # debootstrap knows no lists of mirrors.
    case "$mirror" in mirror+file:*) mirror=$(awk '/:\/\// { print $1; exit }' "${mirror#mirror+file:}") ;; esac
    if [ -z "$mirror" ]; then
        echo "no Debian mirror found in this system's apt sources" >&2
        return 1
    fi
    packages=$(IFS=,; echo "$*")
    rm -rf "$root"
    mkdir -p "$root"
    debootstrap --variant=minbase --keyring="$keyring" --include="$packages" "$suite" "$root" "$mirror" >"$tar.log" 2>&1 ||
        { tail -n 5 "$tar.log" >&2; return 1; }
    tar -C "$root" --exclude='./dev/*' --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
        -cf "$tar.new" . || return 1
    mv "$tar.new" "$tar"
    rm -rf "$root" "$tar.log"
}

# write_suite_source SUITE FILE...: prints one line for sources.list, with the first mirror of Debian's main
# archive in the apt sources given (a security archive has not every suite), in either of apt's two formats, and
# with its keyring.
write_suite_source() {
    local suite=$1
    shift
    local files=()
    local file
    for file in "$@"; do
        [ -r "$file" ] && files+=("$file")
    done
    [ ${#files[@]} -gt 0 ] || return 0
    awk -v suite="$suite" -v keyring=/usr/share/keyrings/debian-archive-keyring.gpg '
        function offer(uri, key) {
            if (uri ~ /\/debian(\.list)?\/?$/ && !done) {  # debian.list: a file of mirrors, as cloud images have
                printf "deb [signed-by=%s] %s %s main\n", (key ~ /^\// ? key : keyring), uri, suite
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
