"""The socket proxy's image as production runs it: not as root, on a read-only root, with its health check."""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from docker.models.containers import Container

from scripts.service_commands import ROOT
from tests.integration.docker.installation import Installation
from tests.services.recording_relay import run_recording_relay
from tests.services.waiting import wait_for

DEADLINE = 60
_STEP = re.compile(r" ---> ([0-9a-f]{12})\n")
MOST_BYTES = 60 * 10**6  # above the base image


@pytest.fixture(scope="module")
def image(installation: Installation) -> Iterator[str]:
    images: Any = installation.engine.images
    tag = f"{installation.id}/socket-proxy"
    # Without the cache, all that the build leaves is this test's own, and may be removed after it.
    _, log = images.build(path=str(ROOT / "socket-proxy"), tag=tag, nocache=True, rm=True, forcerm=True)
    steps = [match[1] for line in log if (match := _STEP.fullmatch(line.get("stream", "")))]
    yield tag
    images.remove(tag, force=True)
    for step in reversed(steps):
        # Gone with the tag, or part of what somebody else is building at this moment.
        with suppress(docker.errors.ImageNotFound), suppress_conflict():
            if not images.get(step).tags:
                images.remove(step)


@contextmanager
def suppress_conflict() -> Iterator[None]:
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise


@contextmanager
def run_container(
    installation: Installation, image: str, socket: Path, **options: Any
) -> Iterator[Container]:
    """As the compose file does."""
    containers: Any = installation.engine.containers
    container = containers.run(
        image,
        name=f"{installation.id}-socket-proxy",
        detach=True,
        init=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        restart_policy={"Name": "unless-stopped"},
        group_add=[str(socket.stat().st_gid)],
        volumes={str(socket): {"bind": "/var/run/docker.sock"}},
        ports={"2375/tcp": ("127.0.0.1", None)},
        **options,
    )
    try:
        yield container
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def container(installation: Installation, image: str) -> Iterator[Container]:
    with run_container(installation, image, installation.socket) as container:
        yield container


def address_of(container: Container) -> str:
    """Another one after each start."""
    container.reload()
    published: Any = container.ports.get("2375/tcp")
    return f"127.0.0.1:{published[0]['HostPort']}" if published else "127.0.0.1:1"


def test_the_image_runs_as_nobody_and_says_that_it_is_healthy(
    installation: Installation, container: Container
) -> None:
    assert stat.S_IMODE(installation.socket.stat().st_mode) & 0o060 == 0o060
    wait_until_healthy(installation, container)
    client = docker.DockerClient(f"tcp://{address_of(container)}", timeout=DEADLINE)
    try:
        assert client.containers.list() == []
        assert client.version()["ApiVersion"]
    finally:
        client.close()
    assert container.attrs["Config"]["User"] == "65532:65532"
    assert {row[0] for row in container.top()["Processes"]} == {"65532"}


def test_a_socket_that_docker_has_made_anew_is_mounted_by_a_restart(
    installation: Installation, image: str, socket_directory: Path
) -> None:
    """With `live-restore` containers go on while their daemon is restarted, and with them a dead mount."""
    path = socket_directory / "docker.sock"

    def answers() -> bool:
        answer = httpx.get(f"http://{address_of(proxy)}/_ping", trust_env=False, timeout=DEADLINE)
        return answer.status_code == httpx.codes.OK

    def restarts() -> int:
        return int(proxy.attrs["RestartCount"])

    def log() -> str:
        return str(proxy.logs())

    with run_recording_relay(path, installation.socket) as relay:
        patience = {"SOCKET_PROXY_GIVE_UP_SECONDS": "0"}
        with run_container(installation, image, path, environment=patience) as proxy:
            wait_for(answers, "an answer", DEADLINE, log)
            relay.close()
            relay.open()
            wait_for(lambda: answers() and restarts() == 1, "an answer on the new socket", DEADLINE, log)
            assert "no connection to Docker's socket for 0 s, ending to be started again" in log()


def wait_until_healthy(installation: Installation, container: Container) -> None:
    filters = {"container": container.id, "event": "health_status"}
    events = installation.engine.events(since=0, filters=filters, decode=True)
    assert next(events)["status"] == "health_status: healthy"
    events.close()
    container.reload()


def test_the_image_is_small_and_says_where_it_comes_from(installation: Installation, image: str) -> None:
    built = installation.engine.images.get(image)
    *layers, _ = built.history()
    assert sum(layer["Size"] for layer in layers) < MOST_BYTES
    assert built.labels["org.opencontainers.image.licenses"] == "Apache-2.0"
