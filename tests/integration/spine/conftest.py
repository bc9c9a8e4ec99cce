"""One yard for all modules whose tests leave it as they found it: a router with nothing broken in it."""

from collections.abc import Iterator

import pytest

from tests.services.mlflow_server import MlflowServer
from tests.services.yard import Yard, run_yard


@pytest.fixture(scope="session")
def yard(mlflow_server: MlflowServer) -> Iterator[Yard]:
    with run_yard(mlflow_server.url, {"DRAIN_GRACE_SEC": "5"}) as yard:
        yard.start()
        yield yard
