"""Images that are not there yet: whoever waits for one sees it, and its time is not the candidate's."""

from functools import partial
from pathlib import Path

import anyio
import pytest

from router.core.models import Rollout, RolloutPhase, Training, TrainingPhase
from router.engine.commands import Caller, RolloutRequest
from router.engine.engine import Engine
from router.runtimes.memory import Behaviour
from tests.unit.engine.yard import Yard

FAR = "far/away:1"
PULLED = f"the image {FAR} is being pulled"


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    yard.runtime.behaviours[FAR] = Behaviour(pull_seconds=60)
    return yard


async def notes(engine: Engine, subject: str) -> list[str]:
    return [event.text for event in await engine.store.events(subject) if event.kind == "note"]


async def test_a_rollout_says_that_its_image_is_being_pulled_until_it_is_there(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image=FAR)
        assert (rollout.phase, rollout.waiting_on) == (RolloutPhase.PENDING, PULLED)
        await yard.clock.advance(60)
        done = await engine.store.get(Rollout, rollout.id)
        assert (done.phase, done.waiting_on) == (RolloutPhase.SUCCEEDED, None)
        assert await notes(engine, rollout.id) == [f"waiting: {PULLED}"]


async def test_the_time_of_a_pull_is_not_the_candidates(yard: Yard) -> None:
    version = yard.add_version()
    yard.answers.unready.add(FAR)
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image=FAR, wait_ready_seconds=5)
        await yard.clock.advance(64)
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.PROBING
        yard.answers.unready.clear()
        await yard.clock.advance(1)
        assert await yard.served_version() == version


async def test_after_a_pull_the_candidate_has_its_own_time_and_no_more(yard: Yard) -> None:
    version = yard.add_version()
    yard.answers.unready.add(FAR)
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image=FAR, wait_ready_seconds=5)
        await yard.clock.advance(66)
        failed = await engine.store.get(Rollout, rollout.id)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.ready_deadline == failed.entered[RolloutPhase.LAUNCHING] + 5


async def test_an_image_that_is_pulled_again_for_a_rollback_does_not_take_its_time(yard: Yard) -> None:
    old, new = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        first = await yard.roll(engine, old, serve_image=FAR)
        await yard.clock.advance(60)
        await yard.roll(engine, new)
        yard.runtime.end((await engine.store.get(Rollout, first.id)).server_id or "", 0)
        await yard.clock.settle()
        yard.runtime.pulled.clear()  # somebody has removed it

        rollback = await engine.commands.roll_back(Caller(), wait_ready_seconds=5)
        await yard.clock.settle()
        waiting = await engine.store.get(Rollout, rollback)
        assert (waiting.phase, waiting.waiting_on) == (RolloutPhase.PENDING, PULLED)
        await yard.clock.advance(60)
        assert await yard.served_version() == old


async def test_a_pull_ends_when_its_rollout_is_aborted(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image=FAR)
        await engine.steering.abort(rollout.id)
        await yard.clock.settle()
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.ROLLED_BACK
        assert FAR not in yard.runtime.pulled


async def test_a_training_says_that_its_image_is_being_pulled(yard: Yard) -> None:
    yard.runtime.behaviours["sources/iris"] = Behaviour(pull_seconds=60)
    async with yard.run() as engine:
        training = await yard.train(engine)
        assert training.phase is TrainingPhase.QUEUED
        assert training.waiting_on == "the image sources/iris is being pulled"
        await yard.clock.advance(60)
        running = await engine.store.get(Training, training.id)
        assert (running.phase, running.waiting_on) == (TrainingPhase.RUNNING, None)


async def test_a_pull_ends_when_its_training_is_cancelled(yard: Yard) -> None:
    yard.runtime.behaviours["sources/iris"] = Behaviour(pull_seconds=60)
    async with yard.run() as engine:
        training = await yard.train(engine)
        await engine.steering.cancel_training(training.id)
        await yard.clock.settle()
        ended = await engine.store.get(Training, training.id)
        assert (ended.phase, ended.waiting_on) == (TrainingPhase.CANCELLED, None)
        assert yard.runtime.pulled == set()


async def test_a_rollout_of_the_active_version_is_recorded_before_its_image_is_pulled(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, version, serve_image=FAR)
        await yard.clock.advance(60)
        yard.runtime.pulled.clear()  # somebody has removed it
        request = RolloutRequest(name="Iris", ref=version, serve_image=FAR)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(engine.commands.start_rollout, request, Caller()))
            await yard.clock.settle()
            pending = await engine.store.find(Rollout, phases=[RolloutPhase.PENDING])
            group.cancel_scope.cancel()
        assert [rollout.waiting_on for rollout in pending] == [PULLED]


async def test_a_pull_that_fails_ends_the_rollout_of_the_active_version_too(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        active = await yard.roll(engine, version)
        yard.runtime.missing.add("sources/iris")
        failed = await yard.roll(engine, version)
        assert (failed.phase, failed.failure and failed.failure.code) == ("failed", "image_not_found")
        assert yard.runtime.running() == [active.server_id]


async def test_a_pull_that_fails_ends_its_rollout_and_its_training(yard: Yard) -> None:
    yard.runtime.missing.update((FAR, "sources/iris"))
    yard.runtime.behaviours["sources/iris"] = Behaviour(pull_seconds=60)
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image=FAR)
        training = await yard.train(engine)
        assert None not in (rollout.waiting_on, training.waiting_on)
        await yard.clock.advance(60)
        ends = (
            await engine.store.get(Rollout, rollout.id),
            await engine.store.get(Training, training.id),
        )
        for end in ends:
            assert (end.phase, end.failure and end.failure.code) == ("failed", "image_not_found")
