"""Fixtures for every suite. Sessions are per xdist worker, so each worker has services of its own."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.services.caddy import Caddy, run_caddy, short_directory
from tests.services.docker_puppets import Puppets, open_puppets
from tests.services.engine import ensure_engine
from tests.services.marks import sweep
from tests.services.mlflow_server import MlflowServer, run_mlflow_server
from tests.services.postgres import Postgres, run_postgres

# No test is judged by how long an example takes. CI tries the same examples each time; people try new ones.
settings.register_profile("switchyard", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("switchyard")

# The one long test that no other shares anything with: begun last, it would leave a worker idle for minutes.
LONGEST = "unit/engine/test_any_order.py"

StartCaddy = Callable[[Path, Path], Caddy]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST not in item.nodeid)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Shared: a test that stops it must use one of its own (`run_mlflow_server`)."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Shared: each test makes a database of its own in it."""
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The address of the machine's Docker engine, which other checkouts and people may use, too."""
    address = ensure_engine()
    sweep(address)
    return address


@pytest.fixture(scope="session")
def puppets(docker_host: str) -> Iterator[Puppets]:
    with open_puppets(docker_host) as made:
        yield made


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def start_caddy(tmp_path: Path) -> Iterator[StartCaddy]:
    """`start_caddy(config, admin_socket)`: a running Caddy, stopped after the test."""
    with ExitStack() as stack:

        def start(config: Path, admin_socket: Path) -> Caddy:
            return stack.enter_context(run_caddy(config, admin_socket, tmp_path / "caddy"))

        yield start
