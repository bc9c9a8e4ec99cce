"""One yard for each module whose tests leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.services.mlflow_server import MlflowServer
from tests.services.yard import Yard, run_yard


@pytest.fixture(scope="module")
def yard(mlflow_server: MlflowServer) -> Iterator[Yard]:
    with run_yard(mlflow_server.url, {"DRAIN_GRACE_SEC": "5"}) as yard:
        yard.start()
        yield yard
