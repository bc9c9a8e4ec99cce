"""What every registry does, whoever keeps it. A trainer stands beside it and logs, as trainers do."""

import json
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import anyio
import pytest

from router.core.clock import SystemClock
from router.core.errors import InvalidRequest, NotFound, UnknownVersion
from router.registries.base import ModelVersion, Registry, RunDataset, RunStatus
from router.registries.memory import MemoryRegistry
from router.registries.mlflow import MlflowRegistry
from router.registries.model_files import MAX_FILE_BYTES
from tests.services.mlflow_trainer import MlflowTrainer

pytestmark = pytest.mark.anyio

SIGNATURE = {
    "inputs": [{"type": "double", "name": "age", "required": True}],
    "outputs": [{"type": "double", "required": True}],
    "params": None,
}
EXAMPLE = json.dumps({"dataframe_split": {"columns": ["age"], "data": [[0.5]]}}).encode()


class Trainer(Protocol):
    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None: ...

    def log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None: ...

    def log_dataset(self, run_id: str, dataset: RunDataset) -> None: ...

    def log_model(
        self,
        run_id: str,
        *,
        signature: Mapping[str, Any] | None = None,
        input_example: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> str: ...

    def delete_run(self, run_id: str) -> None: ...

    def delete_experiment(self, name: str) -> None: ...


class Bench:
    """A registry, the trainer beside it, and names that no other test uses: one server serves them all."""

    def __init__(self, registry: Registry, trainer: Trainer) -> None:
        self.registry = registry
        self.trainer = trainer
        unique = uuid.uuid4().hex[:12]
        self.experiment = f"experiment-{unique}"
        self.model = f"Model-{unique}"
        self._unique = unique
        self._runs = 0

    async def start_run(self) -> str:
        self._runs += 1
        return await self.registry.create_run(self.experiment, f"trn_{self._unique}_{self._runs}", {})

    async def add_version(self, name: str | None = None, **logged: Any) -> ModelVersion:
        run_id = await self.start_run()
        uri = self.trainer.log_model(run_id, **logged)
        return await self.registry.register(name or self.model, run_id, uri)


@pytest.fixture(params=["memory", "mlflow"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "memory":
        memory = MemoryRegistry()
        yield Bench(memory, memory)
        return
    server = request.getfixturevalue("mlflow_server")
    registry = MlflowRegistry(server.url, SystemClock())
    await registry.start()
    yield Bench(registry, MlflowTrainer(server.url))
    await registry.close()


# --- runs -----------------------------------------------------------------------------------------------


async def test_a_new_run_is_running_and_carries_its_tags_and_its_trainings_id(bench: Bench) -> None:
    run_id = await bench.registry.create_run(bench.experiment, "trn_1", {"switchyard.trainer": "diabetes"})
    run = await bench.registry.run(run_id)
    assert run is not None
    assert run.status is RunStatus.RUNNING
    assert run.tags["switchyard.trainer"] == "diabetes"
    assert run.tags["switchyard.training_id"] == "trn_1"


async def test_a_training_asks_twice_and_gets_the_same_run(bench: Bench) -> None:
    first = await bench.registry.create_run(bench.experiment, "trn_1", {})
    assert await bench.registry.create_run(bench.experiment, "trn_1", {"other": "tags"}) == first


async def test_two_trainings_get_two_runs(bench: Bench) -> None:
    first = await bench.registry.create_run(bench.experiment, "trn_1", {})
    assert await bench.registry.create_run(bench.experiment, "trn_2", {}) != first


async def test_a_training_that_asks_from_many_tasks_at_once_gets_one_run(bench: Bench) -> None:
    runs: set[str] = set()

    async def ask() -> None:
        runs.add(await bench.registry.create_run(bench.experiment, "trn_1", {}))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(ask)
    assert len(runs) == 1


async def test_a_deleted_experiment_is_refused_by_name(bench: Bench) -> None:
    await bench.start_run()
    bench.trainer.delete_experiment(bench.experiment)
    with pytest.raises(InvalidRequest, match=bench.experiment):
        await bench.start_run()


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED])
async def test_a_run_ends_with_the_status_it_is_given(bench: Bench, status: RunStatus) -> None:
    run_id = await bench.start_run()
    await bench.registry.finish_run(run_id, status, {"switchyard.outcome": "known"})
    run = await bench.registry.run(run_id)
    assert run is not None
    assert run.status is status
    assert run.tags["switchyard.outcome"] == "known"


async def test_the_last_word_on_how_a_run_ended_counts(bench: Bench) -> None:
    run_id = await bench.start_run()
    await bench.registry.finish_run(run_id, RunStatus.FINISHED, {"a": "1", "b": "1"})
    await bench.registry.finish_run(run_id, RunStatus.FAILED, {"b": "2"})
    await bench.registry.finish_run(run_id, RunStatus.FAILED, {"b": "2"})
    run = await bench.registry.run(run_id)
    assert run is not None
    assert run.status is RunStatus.FAILED
    assert (run.tags["a"], run.tags["b"]) == ("1", "2")


async def test_a_run_takes_more_tags_than_one_request_may_carry(bench: Bench) -> None:
    run_id = await bench.start_run()
    tags = {f"parameter.{number}": str(number) for number in range(250)}
    await bench.registry.finish_run(run_id, RunStatus.FINISHED, tags)
    run = await bench.registry.run(run_id)
    assert run is not None
    assert tags.items() <= run.tags.items()


async def test_metrics_and_parameters_are_read_as_they_were_logged(bench: Bench) -> None:
    run_id = await bench.start_run()
    bench.trainer.log_metrics(run_id, {"rmse": 53.25, "broken": math.nan})
    bench.trainer.log_parameters(run_id, {"n_estimators": "200"})
    run = await bench.registry.run(run_id)
    assert run is not None
    assert run.metrics["rmse"] == 53.25
    assert math.isnan(run.metrics["broken"])
    assert run.parameters == {"n_estimators": "200"}


async def test_a_runs_data_is_told_by_its_digest_and_what_it_was_used_for(bench: Bench) -> None:
    run_id = await bench.start_run()
    train = RunDataset("diabetes", "a1b2", "training", "http", '{"url": "http://data/d.csv"}')
    test = RunDataset("diabetes", "c3d4", None, "code", "{}")
    for dataset in (train, test):
        bench.trainer.log_dataset(run_id, dataset)
    run = await bench.registry.run(run_id)
    assert run is not None
    assert sorted(run.datasets, key=lambda dataset: dataset.digest) == [train, test]


async def test_an_unknown_run_is_none(bench: Bench) -> None:
    assert await bench.registry.run("0" * 32) is None


async def test_a_deleted_run_is_none_and_cannot_be_finished(bench: Bench) -> None:
    run_id = await bench.start_run()
    bench.trainer.delete_run(run_id)
    assert await bench.registry.run(run_id) is None
    with pytest.raises(NotFound, match=run_id):
        await bench.registry.finish_run(run_id, RunStatus.FINISHED, {})


# --- models and versions ----------------------------------------------------------------------------------


async def test_a_runs_models_are_listed_newest_last(bench: Bench) -> None:
    run_id = await bench.start_run()
    logged = [bench.trainer.log_model(run_id) for _ in range(3)]
    assert await bench.registry.logged_models(run_id) == logged


async def test_a_run_that_logged_nothing_has_no_models(bench: Bench) -> None:
    assert await bench.registry.logged_models(await bench.start_run()) == []
    assert await bench.registry.logged_models("0" * 32) == []


async def test_a_logged_model_becomes_a_version_of_its_run(bench: Bench) -> None:
    run_id = await bench.start_run()
    version = await bench.registry.register(bench.model, run_id, bench.trainer.log_model(run_id))
    assert (version.name, version.version, version.run_id) == (bench.model, 1, run_id)
    assert await bench.registry.version(bench.model, 1) == version
    assert await bench.registry.versions_of_run(run_id) == [version]


async def test_a_model_registered_twice_is_one_version(bench: Bench) -> None:
    run_id = await bench.start_run()
    uri = bench.trainer.log_model(run_id)
    first = await bench.registry.register(bench.model, run_id, uri)
    assert await bench.registry.register(bench.model, run_id, uri) == first
    assert await bench.registry.versions_of_run(run_id) == [first]


async def test_the_model_of_the_next_run_becomes_the_next_version(bench: Bench) -> None:
    assert (await bench.add_version()).version == 1
    assert (await bench.add_version()).version == 2


async def test_a_model_that_nobody_logged_is_not_registered(bench: Bench) -> None:
    run_id = await bench.start_run()
    with pytest.raises(NotFound):
        await bench.registry.register(bench.model, run_id, "models:/m-" + "0" * 32)
    assert await bench.registry.versions_of_run(run_id) == []


async def test_a_runs_versions_are_found_under_any_name(bench: Bench) -> None:
    run_id = await bench.start_run()
    uri = bench.trainer.log_model(run_id)
    other = await bench.registry.register(f"{bench.model}-b", run_id, uri)
    one = await bench.registry.register(f"{bench.model}-a", run_id, uri)
    await bench.add_version(f"{bench.model}-a")
    assert await bench.registry.versions_of_run(run_id) == [one, other]


@pytest.mark.parametrize("ref", [0, -1, 3, 2**40, 2**70, "nobody", "no such/alias", "", "1"])
async def test_a_version_that_is_not_there_is_unknown(bench: Bench, ref: int | str) -> None:
    await bench.add_version()
    with pytest.raises(UnknownVersion, match=bench.model):
        await bench.registry.version(bench.model, ref)


@pytest.mark.parametrize("ref", [1, "deployed", "latest"])
async def test_an_unknown_model_has_no_version(bench: Bench, ref: int | str) -> None:
    with pytest.raises(UnknownVersion):
        await bench.registry.version(bench.model, ref)


async def test_latest_names_the_highest_version(bench: Bench) -> None:
    for _ in range(11):
        await bench.add_version()
    assert (await bench.registry.version(bench.model, "latest")).version == 11


async def test_tags_of_a_version_are_added_and_overwritten(bench: Bench) -> None:
    await bench.add_version()
    await bench.registry.set_version_tags(bench.model, 1, {"a": "1", "b": "1"})
    await bench.registry.set_version_tags(bench.model, 1, {"b": "2"})
    assert (await bench.registry.version(bench.model, 1)).tags == {"a": "1", "b": "2"}


async def test_a_version_that_is_not_there_takes_no_tags(bench: Bench) -> None:
    await bench.add_version()
    with pytest.raises(UnknownVersion):
        await bench.registry.set_version_tags(bench.model, 2, {"a": "1"})


async def test_who_gives_up_takes_no_connection_along(bench: Bench) -> None:
    await bench.add_version()
    for moment in range(12):
        with anyio.move_on_after(moment / 1000):
            await bench.registry.set_version_tags(bench.model, 1, {str(tag): "1" for tag in range(12)})
    assert (await bench.registry.version(bench.model, 1)).version == 1


# --- aliases ----------------------------------------------------------------------------------------------


async def test_an_alias_names_a_version_until_it_is_moved(bench: Bench) -> None:
    await bench.add_version()
    await bench.add_version()
    await bench.registry.set_alias(bench.model, "deployed", 1)
    await bench.registry.set_alias(bench.model, "deployed", 1)
    assert (await bench.registry.version(bench.model, "deployed")).version == 1
    await bench.registry.set_alias(bench.model, "deployed", 2)
    assert (await bench.registry.version(bench.model, "deployed")).version == 2
    assert await bench.registry.aliases(bench.model) == {"deployed": 2}


async def test_a_version_knows_its_aliases(bench: Bench) -> None:
    await bench.add_version()
    await bench.registry.set_alias(bench.model, "staging", 1)
    await bench.registry.set_alias(bench.model, "deployed", 1)
    assert (await bench.registry.version(bench.model, 1)).aliases == ("deployed", "staging")
    assert (await bench.registry.version(bench.model, "staging")).aliases == ("deployed", "staging")


async def test_a_deleted_alias_names_nothing(bench: Bench) -> None:
    await bench.add_version()
    await bench.registry.set_alias(bench.model, "deployed", 1)
    await bench.registry.delete_alias(bench.model, "deployed")
    assert await bench.registry.aliases(bench.model) == {}
    with pytest.raises(UnknownVersion):
        await bench.registry.version(bench.model, "deployed")


async def test_deleting_an_alias_that_is_not_there_does_nothing(bench: Bench) -> None:
    await bench.registry.delete_alias(bench.model, "deployed")
    await bench.add_version()
    await bench.registry.delete_alias(bench.model, "deployed")


async def test_an_unknown_model_has_no_aliases(bench: Bench) -> None:
    assert await bench.registry.aliases(bench.model) == {}


async def test_an_alias_cannot_name_a_version_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(UnknownVersion):
        await bench.registry.set_alias(bench.model, "deployed", 1)
    await bench.add_version()
    with pytest.raises(UnknownVersion):
        await bench.registry.set_alias(bench.model, "deployed", 2)
    assert await bench.registry.aliases(bench.model) == {}


async def test_the_alias_latest_is_reserved(bench: Bench) -> None:
    await bench.add_version()
    with pytest.raises(InvalidRequest, match="latest"):
        await bench.registry.set_alias(bench.model, "latest", 1)


# --- files of a model -------------------------------------------------------------------------------------


async def test_signature_and_input_example_are_read_from_the_models_own_files(bench: Bench) -> None:
    await bench.add_version(signature=SIGNATURE, input_example=EXAMPLE)
    assert await bench.registry.signature(bench.model, 1) == SIGNATURE
    assert await bench.registry.input_example(bench.model, 1) == EXAMPLE


async def test_a_model_logged_without_them_has_neither_signature_nor_input_example(bench: Bench) -> None:
    await bench.add_version()
    assert await bench.registry.signature(bench.model, 1) is None
    assert await bench.registry.input_example(bench.model, 1) is None


async def test_one_file_of_a_model_is_downloaded(bench: Bench) -> None:
    content = bytes(range(256)) * 1000
    await bench.add_version(files={"data/weights & more.bin": content, "empty": b""})
    assert await bench.registry.download(bench.model, 1, "data/weights & more.bin") == content
    assert await bench.registry.download(bench.model, 1, "empty") == b""


async def test_a_file_that_is_not_there_is_unknown(bench: Bench) -> None:
    await bench.add_version()
    with pytest.raises(UnknownVersion, match=r"nothing\.bin"):
        await bench.registry.download(bench.model, 1, "nothing.bin")


async def test_a_path_that_leads_out_of_the_model_finds_nothing(bench: Bench) -> None:
    await bench.add_version()
    with pytest.raises((UnknownVersion, InvalidRequest)):
        await bench.registry.download(bench.model, 1, "../artifacts/MLmodel")


async def test_a_file_larger_than_the_router_reads_is_refused(bench: Bench) -> None:
    await bench.add_version(files={"large.bin": bytes(MAX_FILE_BYTES + 1)})
    with pytest.raises(InvalidRequest, match=r"large\.bin"):
        await bench.registry.download(bench.model, 1, "large.bin")


async def test_files_of_a_version_that_is_not_there_are_unknown(bench: Bench) -> None:
    with pytest.raises(UnknownVersion):
        await bench.registry.signature(bench.model, 1)
    with pytest.raises(UnknownVersion):
        await bench.registry.input_example(bench.model, 1)


async def test_a_registry_that_answers_says_so(bench: Bench) -> None:
    await bench.registry.check()
