# Sourced by scripts/backup and scripts/restore.

# run_on_state MODULE ARGUMENT...: the stack of `make demo` is driven with the router's own code; on Docker a bare
# Python is enough. Every argument but an option is a file, seen from where the caller was.
run_on_state() {
    local module=$1 from=$OLDPWD argument arguments=()
    shift
    for argument; do
        case $argument in -* | /*) ;; *) argument=$from/$argument ;; esac
        arguments+=("$argument")
    done
    if [ "${RUNTIME:-}" != docker ]; then
        scripts/setup
        exec .venv/bin/python -m "$module" ${arguments[@]+"${arguments[@]}"}
    fi
    with_setup_lock make_uv >&2
    DOCKER_HOST=$(scripts/get-engine)
    export DOCKER_HOST
    exec .local/uv/bin/python -m "$module" ${arguments[@]+"${arguments[@]}"}
}
