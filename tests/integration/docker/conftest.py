"""One installation on a real Docker engine, shared by the tests of a worker."""

from collections.abc import Iterator

import pytest

from tests.integration.docker.installation import Installation, open_installation


@pytest.fixture(scope="session")
def installation(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with open_installation(docker_host, tmp_path_factory.mktemp("installation")) as made:
        yield made
