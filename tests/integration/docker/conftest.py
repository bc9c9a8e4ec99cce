"""A real Docker engine, and one installation on it for the tests of a worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.integration.docker.installation import Installation, open_installation

DOCKER_SOCKET = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine itself, with nothing in between."""
    client = docker.DockerClient(base_url=f"unix://{DOCKER_SOCKET}", timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def installation(
    engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with open_installation(engine, DOCKER_SOCKET, tmp_path_factory.mktemp("installation")) as made:
        yield made
