# Sourced by scripts/setup: the Python side. Each environment keeps, in the file `stamp`, what it was made
# from; it is made again only when that changes.

find_python() {  # prints a Python >= 3.11 that can make virtual environments
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                command -v "$candidate"
                return
            fi
            local without_venv=$candidate
        fi
    done
    if [ -n "${without_venv:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing the system package python3-venv" >&2
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv; } >&2
        command -v "$without_venv"
    elif [ -n "${without_venv:-}" ]; then
        echo "error: $without_venv cannot make virtual environments; install them: sudo apt-get install python3-venv" >&2
        return 1
    else
        echo "error: Python 3.11 or newer is needed; install it (Debian: sudo apt-get install python3 python3-venv; macOS: brew install python@3.13) or set PYTHON to its path" >&2
        return 1
    fi
}

digest() {  # digest FILE...: one hash over the files' contents
    if command -v sha256sum >/dev/null; then cat "$@" | sha256sum; else cat "$@" | shasum -a 256; fi | cut -c1-16
}

is_current() {  # is_current ENVIRONMENT STAMP
    [ -x "$1/bin/python" ] && [ "$(cat "$1/stamp" 2>/dev/null)" = "$2" ]
}

make_uv() {
    local python
    if is_current .local/uv uv; then return; fi
    python=$(find_python)
    echo "setup: uv, which installs the Python packages -> .local/uv (with $python)"
    "$python" -m venv --clear .local/uv
    # The router's own lock names uv's version and hashes.
    awk '/^[a-z]/ { wanted = /^uv==/ } wanted && !/#/' requirements/router.lock > .local/uv/uv.lock
    .local/uv/bin/python -m pip install -qq --require-hashes --no-deps -r .local/uv/uv.lock
    echo uv > .local/uv/stamp
}

make_environment() {  # make_environment DIRECTORY LOCK
    follow_pip_index
    # Without its stamp it was interrupted: half a package looks installed to uv.
    [ -e "$1/stamp" ] || rm -rf "$1"
    [ -x "$1/bin/python" ] || .local/uv/bin/uv venv --quiet --python .local/uv/bin/python "$1"
    rm -f "$1/stamp"
    # Without bytecode, the first start of each program would compile all it imports.
    VIRTUAL_ENV="$PWD/$1" .local/uv/bin/uv pip sync --quiet --compile-bytecode --require-hashes "$2"
}

make_router_environment() {  # make_router_environment router|dev
    local lock=requirements/$1.lock
    # The tools of `dev` stand beside the same packages, so an environment that has them serves both.
    if is_current .venv "$(digest requirements/dev.lock)"; then return; fi
    if is_current .venv "$(digest "$lock")"; then return; fi
    echo "setup: the router's Python packages ($lock) -> .venv"
    make_environment .venv "$lock"
    echo "$PWD" > "$(echo .venv/lib/python3*/site-packages)/switchyard.pth"
    digest "$lock" > .venv/stamp
}

make_mlflow_environment() {
    local lock=requirements/mlflow.lock
    if is_current .local/mlflow "$(digest "$lock")"; then return; fi
    echo "setup: the MLflow server's Python packages ($lock) -> .local/mlflow"
    make_environment .local/mlflow "$lock"
    digest "$lock" > .local/mlflow/stamp
}
