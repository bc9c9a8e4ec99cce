# Sourced by scripts that install Python packages.

# uv reads neither pip's configuration nor its certificate setting. Translate what pip was told on this
# machine, so that one configuration holds for both. What is already set for uv wins.
follow_pip_index() {
    local config
    config=$("${PIP:-.local/uv/bin/pip}" config list 2>/dev/null) || return 0
    pip_setting() {  # pip_setting NAME: pip's own order of precedence is environment, site, user, global
        local scope value
        for scope in ':env:' site install user global; do
            value=$(sed -n "s/^$scope\.$1='\(.*\)'\$/\1/p" <<<"$config" | sed 's/\\n/ /g')
            if [ -n "$value" ]; then
                echo "$value"
                break
            fi
        done
    }
    local index extra links cert
    index=$(pip_setting index-url) extra=$(pip_setting extra-index-url)
    links=$(pip_setting find-links) cert=$(pip_setting cert)
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    if [ -n "$extra" ]; then
        # pip takes the best version of all its indexes; uv would stop at the first that knows the name.
        export UV_INDEX="${UV_INDEX:-$extra}" UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
    fi
    if [ -n "$links" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-${links// /,}}"; fi
    if [ -n "$cert" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"; fi
    if [ -n "$(pip_setting no-index)" ]; then export UV_NO_INDEX=1; fi
    export UV_PYTHON_DOWNLOADS=never
}
