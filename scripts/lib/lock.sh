# Sourced by scripts that put something into .local/.

# with_setup_lock COMMAND...: two scripts of one checkout may set up at once.
with_setup_lock() {
    mkdir -p .local
    (
        if command -v flock >/dev/null; then flock 9; fi
        "$@"
    ) 9>.local/setup.lock
}
