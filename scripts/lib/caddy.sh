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

# Debian's stable releases carry an older Caddy; the one of its `sid` suite needs only libc and runs
# on any of them.
unpack_debian_caddy() {
    unpack_debian_packages sid .local/caddy/unpacked caddy &&
        mv -f .local/caddy/unpacked/usr/bin/caddy .local/caddy/caddy || return 1
    rm -rf .local/caddy/unpacked
}
