# Sourced by scripts that call Docker's command line.

# Sets DOCKER, and DOCKER_CONFIG where the plugins are ours. Compose and buildx are plugins that an installed
# client may lack; then all three are Debian's packages, unpacked in the checkout.
find_docker_client() {
    local theirs=${DOCKER_CONFIG:-$HOME/.docker} ours=$PWD/.local/docker shared
    if docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
        DOCKER=$(command -v docker)
        return
    fi
    with_setup_lock make_docker_client
    for shared in config.json contexts; do  # logins and the choice of engine stay the user's
        if [ "$theirs" != "$ours/config" ] && [ -e "$theirs/$shared" ]; then ln -sfn "$theirs/$shared" "$ours/config/$shared"; fi
    done
    DOCKER=$ours/usr/bin/docker
    export DOCKER_CONFIG=$ours/config
}

make_docker_client() {
    local installing="install docker with its plugins compose and buildx, and put it on PATH"
    if [ -e .local/docker/complete ]; then return; fi
    if ! command -v apt-get >/dev/null; then
        echo "error: $installing" >&2
        return 1
    fi
    echo "setup: Docker's client, Compose and buildx: unpacking Debian's packages -> .local/docker" >&2
    if ! unpack_debian_packages trixie .local/docker docker-cli docker-compose docker-buildx; then
        echo "error: that did not work, see above; $installing" >&2
        return 1
    fi
    mkdir -p .local/docker/config/cli-plugins
    ln -s ../../usr/libexec/docker/cli-plugins/docker-{compose,buildx} .local/docker/config/cli-plugins/
    touch .local/docker/complete
}
