# Sourced by scripts that call Docker's command line.

# Sets DOCKER, and DOCKER_CONFIG where the plugins are ours. Compose and buildx are plugins that an installed
# client may lack; then all three are Debian's packages, unpacked in the checkout.
find_docker_client() {
    local theirs=${DOCKER_CONFIG:-$HOME/.docker} ours=$PWD/.local/docker shared
    if docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
        DOCKER=$(command -v docker)
        return
    fi
    make_docker_client
    for shared in config.json contexts; do  # logins and the choice of engine stay the user's
        if [ -e "$theirs/$shared" ]; then ln -sfn "$theirs/$shared" "$ours/config/$shared"; fi
    done
    DOCKER=$ours/usr/bin/docker
    export DOCKER_CONFIG=$ours/config
}

make_docker_client() {
    [ -e .local/docker/complete ] && return
    mkdir -p .local
    (
        if command -v flock >/dev/null; then flock 9; fi
        [ -e .local/docker/complete ] && exit
        if ! command -v apt-get >/dev/null; then
            echo "error: docker with its plugins compose and buildx is needed: install them and put docker on PATH" >&2
            exit 1
        fi
        echo "setup: Docker's client, Compose and buildx: unpacking Debian's packages -> .local/docker" >&2
        unpack_debian_packages trixie .local/docker docker-cli docker-compose docker-buildx
        mkdir -p .local/docker/config/cli-plugins
        ln -s ../../usr/libexec/docker/cli-plugins/docker-{compose,buildx} .local/docker/config/cli-plugins/
        touch .local/docker/complete
    ) 9>.local/docker.lock
}
