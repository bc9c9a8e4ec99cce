"""The registry and a real MLflow server between which something is wrong, and what only a real one does."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from router.core.clock import SystemClock
from router.core.errors import RegistryRefusedHost, RegistryUnavailable, UnsupportedSetting
from router.registries.mlflow import MlflowRegistry
from router.registries.patience import Patience
from scripts.service_commands import MLFLOW
from tests.services.mlflow_server import MlflowServer, run_mlflow_server
from tests.services.mlflow_trainer import MlflowTrainer
from tests.services.ports import find_free_port
from tests.services.tcp import FixedAnswer, Link, listen, never_answer

pytestmark = pytest.mark.anyio

QUICK = Patience(connect=0.5, answer=0.5, total=60)
AT_LEISURE = Patience(answer=30, total=50)  # for many calls at once


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Of this module alone, so that it may be stopped; accepts any port of the loopback as its Host."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow"), ["127.0.0.1:*"]) as server:
        yield server


@pytest.fixture
def experiment() -> str:
    return f"experiment-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def registry_at(uri: str, patience: Patience | None = None) -> AsyncIterator[MlflowRegistry]:
    registry = MlflowRegistry(uri, SystemClock(), patience)
    await registry.start()
    try:
        with anyio.fail_after(60):
            yield registry
    finally:
        await registry.close()


def count_runs(server: MlflowServer, experiment: str) -> int:
    api = f"{server.url}/api/2.0/mlflow"
    found = httpx.get(f"{api}/experiments/get-by-name", params={"experiment_name": experiment}).json()
    ids = [found["experiment"]["experiment_id"]]
    return len(httpx.post(f"{api}/runs/search", json={"experiment_ids": ids}).json().get("runs", []))


# --- a server that is not there, or not itself -----------------------------------------------------------


async def test_a_server_that_is_down_is_named_as_unavailable() -> None:
    port = find_free_port()
    async with registry_at(f"http://127.0.0.1:{port}") as registry:
        with pytest.raises(RegistryUnavailable, match=f"127.0.0.1:{port}"):
            await registry.version("DiabetesRF", 1)


async def test_a_server_that_accepts_and_never_answers_is_unavailable_after_a_few_tries() -> None:
    async with listen(never_answer) as port, registry_at(f"http://127.0.0.1:{port}", QUICK) as registry:
        with pytest.raises(RegistryUnavailable, match="ReadTimeout"):
            await registry.check()


async def test_one_deadline_holds_for_all_tries_of_a_call() -> None:
    patience = Patience(answer=3600, total=0.5)
    async with listen(never_answer) as port, registry_at(f"http://127.0.0.1:{port}", patience) as registry:
        with pytest.raises(RegistryUnavailable, match=r"no result within 0\.5 s"):
            await registry.check()


async def test_a_server_that_refuses_our_host_is_named_as_that_with_what_to_allow(
    mlflow_server: MlflowServer,
) -> None:
    async with listen(Link(mlflow_server.port)) as port, registry_at(f"http://127.0.0.1:{port}") as registry:
        with pytest.raises(RegistryRefusedHost) as refused:
            await registry.check()
        assert refused.value.hint is not None
        assert f"127.0.0.1:{port}" in refused.value.hint
        assert "--allowed-hosts" in refused.value.hint
        with pytest.raises(RegistryRefusedHost):
            await registry.download("DiabetesRF", 1, "MLmodel")


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        ("502 Bad Gateway", b"<html>", "text/html"),
        ("404 Not Found", b"<html>", "text/html"),
        ("200 OK", b"<html>hello", "text/html"),
        ("200 OK", b"[]", "application/json"),
        (
            "500 Internal Server Error",
            b'{"error_code": "INTERNAL_ERROR", "message": "x"}',
            "application/json",
        ),
        ("429 Too Many Requests", b'{"error_code": "RESOURCE_EXHAUSTED"}', "application/json"),
    ],
)
async def test_an_answer_that_is_none_of_mlflows_counts_as_no_answer(
    status: str, body: bytes, content_type: str
) -> None:
    peer = FixedAnswer(status, body, content_type)
    async with listen(peer) as port, registry_at(f"http://127.0.0.1:{port}") as registry:
        with pytest.raises(RegistryUnavailable):
            await registry.aliases("DiabetesRF")
        assert len(peer.requests) == 3


async def test_credentials_are_sent_and_appear_in_no_error() -> None:
    peer = FixedAnswer("401 Unauthorized", b"who are you?")
    async with listen(peer) as port, registry_at(f"http://me:hush@127.0.0.1:{port}") as registry:
        with pytest.raises(RegistryUnavailable, match="credentials") as refused:
            await registry.check()
        assert b"authorization: basic bwu6ahvzaa==" in peer.requests[0].lower()
        assert "hush" not in f"{refused.value!r} {refused.value.hint} {refused.value.__cause__!r}"


async def test_a_path_before_the_api_is_kept() -> None:
    peer = FixedAnswer("200 OK", b"{}", "application/json")
    async with listen(peer) as port, registry_at(f"http://127.0.0.1:{port}/mlflow/") as registry:
        await registry.check()
        assert peer.requests[0].startswith(b"POST /mlflow/api/2.0/mlflow/experiments/search ")


@pytest.mark.parametrize(
    "uri",
    ["", "mlruns", "sqlite:///mlflow.db", "databricks", "http://", "http://[", "http://h:99999", "file:/x"],
)
def test_a_tracking_uri_that_names_no_server_is_refused_by_name(uri: str) -> None:
    with pytest.raises(UnsupportedSetting, match="MLFLOW_TRACKING_URI"):
        MlflowRegistry(uri, SystemClock())


# --- a server that goes and comes, and answers that get lost ----------------------------------------------


async def test_the_same_driver_works_again_when_the_server_returns(
    open_server: MlflowServer, experiment: str
) -> None:
    async with registry_at(open_server.url) as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        await anyio.to_thread.run_sync(open_server.stop)
        with pytest.raises(RegistryUnavailable):
            await registry.run(run_id)
        await anyio.to_thread.run_sync(open_server.start)
        assert await registry.create_run(experiment, "trn_1", {}) == run_id


async def test_a_run_whose_creation_was_never_heard_of_is_found_and_not_made_twice(
    open_server: MlflowServer, experiment: str
) -> None:
    link = Link(open_server.port)
    async with listen(link) as port, registry_at(f"http://127.0.0.1:{port}") as registry:
        link.lose_next_answer_to(b"/runs/create ")
        run_id = await registry.create_run(experiment, "trn_1", {})
        assert link.lost == 1
        assert await registry.create_run(experiment, "trn_1", {}) == run_id
    assert count_runs(open_server, experiment) == 1


@pytest.mark.parametrize("lost", [b"/registered-models/create ", b"/model-versions/create "])
async def test_a_registration_that_was_never_heard_of_is_found_and_not_made_twice(
    open_server: MlflowServer, experiment: str, lost: bytes
) -> None:
    link = Link(open_server.port)
    async with listen(link) as port, registry_at(f"http://127.0.0.1:{port}") as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        uri = MlflowTrainer(open_server.url).log_model(run_id)
        link.lose_next_answer_to(lost)
        version = await registry.register(experiment, run_id, uri)
        assert link.lost == 1
        assert await registry.versions_of_run(run_id) == [version]


async def test_two_that_create_one_experiment_at_the_same_moment_share_it(open_server: MlflowServer) -> None:
    """The router and a trainer, which does the same with its own client."""
    runs: dict[str, set[str]] = {}

    async def create(registry: MlflowRegistry, experiment: str, training_id: str) -> None:
        runs.setdefault(experiment, set()).add(await registry.create_run(experiment, training_id, {}))

    async with (
        registry_at(open_server.url, AT_LEISURE) as router,
        registry_at(open_server.url, AT_LEISURE) as trainer,
        anyio.create_task_group() as group,
    ):
        for number in range(8):
            experiment = f"shared-{uuid.uuid4().hex[:12]}"
            group.start_soon(create, router, experiment, f"trn_{number}")
            group.start_soon(create, trainer, experiment, "trn_other")
    assert [len(made) for made in runs.values()] == [2] * 8


async def test_many_tasks_at_once_each_get_their_own_answer(
    open_server: MlflowServer, experiment: str
) -> None:
    async with registry_at(open_server.url, AT_LEISURE) as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        uri = MlflowTrainer(open_server.url).log_model(run_id, input_example=b'{"inputs": [1]}')
        await registry.register(experiment, run_id, uri)

        async def use(number: int) -> None:
            alias = f"alias-{number}"
            await registry.set_alias(experiment, alias, 1)
            assert alias in (await registry.version(experiment, alias)).aliases
            assert await registry.input_example(experiment, 1) == b'{"inputs": [1]}'

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(use, number)
        assert len(await registry.aliases(experiment)) == 50


# --- what trainers leave ----------------------------------------------------------------------------------


async def test_a_model_that_its_trainer_did_not_finish_writing_is_not_listed(
    open_server: MlflowServer, experiment: str
) -> None:
    trainer = MlflowTrainer(open_server.url)
    async with registry_at(open_server.url) as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        complete = trainer.log_model(run_id)
        trainer.begin_model(run_id)
        assert await registry.logged_models(run_id) == [complete]


async def test_models_among_a_runs_artifacts_are_found_and_registered(
    open_server: MlflowServer, experiment: str
) -> None:
    trainer = MlflowTrainer(open_server.url)
    async with registry_at(open_server.url) as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        second = trainer.log_artifact_model(run_id, "a model", "2024-05-01 12:00:01.5")
        first = trainer.log_artifact_model(run_id, "models/best", "2024-05-01 12:00:00.25")
        third = trainer.log_model(run_id)
        assert await registry.logged_models(run_id) == [first, second, third]
        version = await registry.register(experiment, run_id, second)
        assert await registry.versions_of_run(run_id) == [version]
        assert await registry.download(experiment, 1, "data/weights.bin") == b"0"


TRAIN_WITH_MLFLOWS_OWN_CLIENT = """
import sys
import mlflow, pandas

class Sum(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input.sum(axis=1)

rows = pandas.DataFrame({"age": [0.5, 1.0], "weight": [2.0, 3.0]})
mlflow.set_experiment(sys.argv[1])
with mlflow.start_run():
    signature = mlflow.models.infer_signature(rows, rows.sum(axis=1))
    mlflow.pyfunc.log_model(
        name="model", python_model=Sum(), input_example=rows, signature=signature, pip_requirements=[],
        registered_model_name=sys.argv[1],
    )
"""


async def test_what_mlflows_own_client_logs_is_read_back(open_server: MlflowServer, experiment: str) -> None:
    async with registry_at(open_server.url) as registry:
        run_id = await registry.create_run(experiment, "trn_1", {})
        environment = {
            "MLFLOW_TRACKING_URI": open_server.url,
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PATH": str(Path(sys.executable).parent),
        }
        command = [str(MLFLOW.parent / "python"), "-c", TRAIN_WITH_MLFLOWS_OWN_CLIENT, experiment]
        trained = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.STDOUT)
        assert trained.returncode == 0, trained.stdout.decode()

        [version] = await registry.versions_of_run(run_id)
        assert (version.name, version.version) == (experiment, 1)
        assert len(await registry.logged_models(run_id)) == 1
        signature = await registry.signature(experiment, 1)
        assert signature is not None
        assert [column["name"] for column in signature["inputs"]] == ["age", "weight"]
        example = await registry.input_example(experiment, 1)
        assert example is not None
        assert json.loads(example)["dataframe_split"]["columns"] == ["age", "weight"]
