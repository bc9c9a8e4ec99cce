"""Trainings over memory drivers: what counts as success, and what the record says when it is not one."""

import json
from pathlib import Path

import anyio
import pytest

from router.core.errors import AlreadyFinished, RegistryUnavailable, UnknownTrainer, UnsupportedSetting
from router.core.models import Rollout, RolloutPhase, Training, TrainingPhase
from router.engine.commands import Caller, TrainingRequest
from router.engine.engine import Engine
from router.runtimes.docker import DockerRuntime
from router.runtimes.docker_create import MOST_ENVIRONMENT, Placement, list_environment
from tests.unit.engine.yard import EXAMPLE, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def finish(yard: Yard, engine: Engine, training: Training, exit_code: int | None = 0) -> Training:
    yard.runtime.end(training.id, exit_code)
    await yard.clock.settle()
    return await engine.store.get(Training, training.id)


async def test_the_version_that_the_trainer_registered_for_its_run_is_the_result(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        assert training.phase is TrainingPhase.RUNNING
        assert training.run_id is not None
        yard.registry.log_metrics(training.run_id, {"rmse": 55.0})
        version = yard.registry.add_version("Iris", training.run_id)
        done = await finish(yard, engine, training)
        assert done.phase is TrainingPhase.SUCCEEDED
        assert (done.registered_model, done.version) == ("Iris", version.version)
        assert done.metrics == {"rmse": 55.0}
        run = await yard.registry.run(training.run_id)
        assert run is not None
        assert run.status == "FINISHED"
        assert run.tags["switchyard.training_id"] == training.id
        assert run.tags["switchyard.image_digest"] == done.image_digest


async def test_an_env_that_cannot_be_honoured_is_refused_before_anything_is_recorded(yard: Yard) -> None:
    yard.runtime.unsupported.add("env")
    async with yard.run() as engine:
        with pytest.raises(UnsupportedSetting, match="env"):
            await yard.train(engine)
        assert await engine.store.find(Training) == []


async def test_an_env_that_its_run_makes_too_large_is_refused_before_anything_is_recorded(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = DockerRuntime(address="tcp://127.0.0.1:1", placement=Placement(), pull_seconds=1)
    monkeypatch.setattr(yard.runtime, "refuse_unsupported", docker.refuse_unsupported)
    async with yard.run() as engine:
        await yard.train(engine)
        bare = len(json.dumps(list_environment(yard.runtime.launched[0].env)))
        largest = "x" * (MOST_ENVIRONMENT - bare - len(', "X="'))
        larger = TrainingRequest("iris", parameters={"X": largest + "x"})
        with pytest.raises(UnsupportedSetting, match="env cannot be honoured"):
            await engine.commands.start_training(larger, Caller())
        assert len(await engine.store.find(Training)) == 1
        await engine.commands.start_training(TrainingRequest("iris", parameters={"X": largest}), Caller())
        await yard.clock.settle()
        assert len(json.dumps(list_environment(yard.runtime.launched[1].env))) == MOST_ENVIRONMENT


async def test_an_end_that_nobody_was_told_of_is_found_by_the_next_look(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Iris", training.run_id)
        yard.runtime.forget_callbacks()
        assert (await finish(yard, engine, training)).phase is TrainingPhase.RUNNING
        await yard.clock.advance(yard.policy.sweep_seconds + 1)
        assert (await engine.store.get(Training, training.id)).phase is TrainingPhase.SUCCEEDED


async def test_the_trainer_gets_its_run_and_the_tracking_server(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        env = yard.runtime.launched[0].env
        assert env["MLFLOW_RUN_ID"] == training.run_id
        assert env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
        assert env["REGISTERED_MODEL_NAME"] == "Iris"


async def test_the_exit_code_decides_even_if_a_version_was_registered(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Iris", training.run_id)
        done = await finish(yard, engine, training, exit_code=1)
        assert done.phase is TrainingPhase.FAILED
        assert done.failure is not None
        assert done.failure.message == "trainer failed (exit=1)"
        run = await yard.registry.run(str(training.run_id))
        assert run is not None
        assert run.status == "FAILED"


async def test_a_trainer_that_logged_a_model_and_registered_none_gets_it_registered(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.log_model(str(training.run_id))
        done = await finish(yard, engine, training)
        assert done.phase is TrainingPhase.SUCCEEDED
        version = await yard.registry.version("Iris", 1)
        assert version.run_id == training.run_id


async def test_a_trainer_that_logged_nothing_has_failed(yard: Yard) -> None:
    async with yard.run() as engine:
        done = await finish(yard, engine, await yard.train(engine))
        assert done.phase is TrainingPhase.FAILED
        assert done.failure is not None
        assert "no model" in done.failure.message


async def test_a_version_of_another_run_does_not_count(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Iris", "another-run")
        done = await finish(yard, engine, training)
        assert done.phase is TrainingPhase.FAILED


async def test_a_version_under_another_name_does_not_count(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Roses", training.run_id)
        done = await finish(yard, engine, training)
        assert done.phase is TrainingPhase.FAILED
        assert done.failure is not None
        assert "Roses" in done.failure.message
        assert "Iris" in done.failure.message


async def test_of_two_versions_the_newest_counts_with_a_warning(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Iris", training.run_id)
        newest = yard.registry.add_version("Iris", training.run_id)
        done = await finish(yard, engine, training)
        assert done.version == newest.version
        assert done.warnings


async def test_a_trainer_that_overruns_its_timeout_is_stopped_whatever_its_exit_code(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        await yard.clock.advance(601)
        done = await engine.store.get(Training, training.id)
        assert done.phase is TrainingPhase.TIMED_OUT
        assert training.id not in yard.runtime.running()


async def test_a_cancelled_training_is_stopped_and_its_run_closed(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        await engine.steering.cancel_training(training.id)
        await yard.clock.settle()
        done = await engine.store.get(Training, training.id)
        assert done.phase is TrainingPhase.CANCELLED
        run = await yard.registry.run(str(training.run_id))
        assert run is not None
        assert run.status == "KILLED"
        with pytest.raises(AlreadyFinished):
            await engine.steering.cancel_training(training.id)


async def test_a_training_cancelled_while_its_run_is_made_closes_that_run(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run, answered = yard.registry.create_run, anyio.Event()

    async def create_slowly(experiment: str, training_id: str, tags: dict[str, str]) -> str:
        run_id = await create_run(experiment, training_id, tags)
        await answered.wait()
        return run_id

    monkeypatch.setattr(yard.registry, "create_run", create_slowly)
    async with yard.run() as engine:
        training = await yard.train(engine)
        assert training.phase is TrainingPhase.QUEUED
        await engine.steering.cancel_training(training.id)
        await yard.clock.settle()
        answered.set()
        await yard.clock.settle()
        done = await engine.store.get(Training, training.id)
        assert done.phase is TrainingPhase.CANCELLED
        run = await yard.registry.run(await create_run(done.experiment, done.id, {}))
        assert run is not None
        assert run.status == "KILLED"
        assert yard.runtime.launched == []


async def test_a_registry_that_is_away_is_waited_for_in_plain_sight(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
        yard.registry.add_version("Iris", training.run_id)
        yard.registry.fail_with(RegistryUnavailable("MLflow does not answer at http://mlflow:5000"))
        waiting = await finish(yard, engine, training)
        assert waiting.phase is TrainingPhase.REGISTERING
        assert waiting.waiting_on == "MLflow does not answer at http://mlflow:5000"
        yard.registry.fail_with(None)
        await yard.clock.advance(20)
        done = await engine.store.get(Training, training.id)
        assert done.phase is TrainingPhase.SUCCEEDED
        assert done.waiting_on is None


async def test_a_promised_rollout_follows_the_training(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine, then_roll=True)
        version = yard.registry.add_version("Iris", training.run_id, input_example=EXAMPLE)
        done = await finish(yard, engine, training)
        assert done.roll is not None
        rollout = await engine.store.get(Rollout, done.roll.rollout_id)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == version.version


async def test_a_promised_rollout_waits_for_the_one_before_it(yard: Yard) -> None:
    slow = yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        first = await yard.roll(engine, slow, serve_image="sources/slow")
        training = await yard.train(engine, then_roll=True)
        version = yard.registry.add_version("Iris", training.run_id, input_example=EXAMPLE)
        waiting = await finish(yard, engine, training)
        assert waiting.waiting_on is not None
        assert first.id in waiting.waiting_on
        await engine.steering.abort(first.id)
        await yard.clock.advance(20)
        assert await yard.served_version() == version.version


async def test_a_training_goes_on_under_the_next_router(yard: Yard) -> None:
    async with yard.run() as engine:
        training = await yard.train(engine)
    yard.registry.add_version("Iris", training.run_id)
    yard.runtime.end(training.id, 0)
    async with yard.run() as engine:
        done = await engine.store.get(Training, training.id)
        assert done.phase is TrainingPhase.SUCCEEDED
        assert len(yard.runtime.launched) == 1


async def test_the_same_key_starts_one_training(yard: Yard) -> None:
    async with yard.run() as engine:
        request, caller = TrainingRequest(trainer="iris"), Caller(key="abc", fingerprint="1")
        first = await engine.commands.start_training(request, caller)
        second = await engine.commands.start_training(request, caller)
        assert first == second == await engine.commands.recall(caller)
        await yard.clock.settle()
        assert len(yard.runtime.launched) == 1


async def test_an_unknown_trainer_is_refused_and_the_known_ones_are_named(yard: Yard) -> None:
    async with yard.run() as engine:
        with pytest.raises(UnknownTrainer) as refused:
            await engine.commands.start_training(TrainingRequest(trainer="rose"), Caller())
        assert "iris" in str(refused.value.hint)
