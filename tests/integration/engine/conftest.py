"""One yard for as many tests as leave it at rest; the next test after one that does not gets a new one."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.engine.aftermath import find_unsettled
from tests.integration.engine.stage import Stage, set_stage
from tests.integration.spine.stage import add_trainer
from tests.services.mlflow_server import MlflowServer
from tests.services.small_disk import may_mount
from tests.services.yard import Yard, run_yard

collect_ignore = [] if may_mount() else ["test_full_disk.py"]
SETTINGS = {"DRAIN_GRACE_SEC": "5", "HEALTH_TIMEOUT_SEC": "60"}


class SharedYard:
    def __init__(self, mlflow_url: str, stack: ExitStack) -> None:
        self._mlflow_url = mlflow_url
        self._stack = stack
        self._yard: Yard | None = None
        self._model: str | None = None

    def take(self) -> Yard:
        if self._yard is None or not is_well(self._yard):
            self._stack.close()
            self._yard = self._stack.enter_context(run_yard(self._mlflow_url, SETTINGS, may_crash=True))
            self._yard.start()
        return self._yard

    def model_with_two_versions(self, yard: Yard) -> str:
        if self._model is None:
            trainer = add_trainer(yard)
            for _ in range(2):
                yard.post(f"/admin/train/{trainer.name}")
            self._model = trainer.model
        return self._model


def is_well(yard: Yard) -> bool:
    return yard.router.running and yard.caddy.running and not find_unsettled(yard)


@pytest.fixture(scope="session")
def shared_yard(mlflow_server: MlflowServer) -> Iterator[SharedYard]:
    with ExitStack() as stack:
        yield SharedYard(mlflow_server.url, stack)


@pytest.fixture
def yard(shared_yard: SharedYard) -> Yard:
    return shared_yard.take()


@pytest.fixture
def stage(shared_yard: SharedYard, yard: Yard) -> Stage:
    return set_stage(yard, shared_yard.model_with_two_versions(yard))
