# Sourced by scripts/demo, before it installs anything.

# Caddy is given paths below SWITCHYARD_HOME: no spaces, and a socket's whole path may have 100 characters.
check_home() {
    local home=${SWITCHYARD_HOME:-$PWD/.switchyard}
    case $home in /*) ;; *) home=$PWD/$home ;; esac
    if [ "${#home}" -gt 70 ] || [[ $home =~ [^A-Za-z0-9_./@+,=~-] ]]; then
        echo "error: Caddy cannot be given the path $home: at most 70 plain characters, no spaces. Keep the state elsewhere: SWITCHYARD_HOME=/var/tmp/switchyard make demo (and make down)" >&2
        return 1
    fi
}
