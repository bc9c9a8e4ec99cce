"""A real Docker engine, and one installation on it for the tests of a worker."""

from collections.abc import Iterator

import docker
import pytest

from tests.integration.docker.installation import DOCKER_SOCKET, Installation, open_installation


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
    with open_installation(engine, tmp_path_factory.mktemp("installation")) as made:
        yield made
