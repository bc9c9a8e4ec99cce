"""No room on a disk: whoever waits is told, nothing is half done, and work goes on when there is room."""

from pathlib import Path

import pytest

from router.core.errors import StorageFull
from router.core.models import Rollout, RolloutPhase, ServerPhase, Training, TrainingPhase
from router.core.traffic import Traffic
from router.engine.commands import Caller, RolloutRequest
from tests.unit.engine.yard import Yard

FULL = StorageFull("the disk of the slots is full; nothing was changed")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_a_switch_without_room_ends_the_rollout_and_its_candidate(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, new = yard.add_version(), yard.add_version()

    async def set_nothing(endpoint: str, traffic: Traffic) -> None:
        raise FULL

    async with yard.run() as engine:
        await yard.roll(engine, good)
        monkeypatch.setattr(yard.proxy, "set_traffic", set_nothing)
        rollout = await yard.roll(engine, new)
        assert rollout.phase is RolloutPhase.FAILED
        assert rollout.failure is not None
        assert (rollout.failure.status, rollout.failure.code) == (507, "storage_full")
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.STOPPED
        assert await yard.served_version() == good


async def test_a_launch_without_room_ends_the_rollout(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    good, new = yard.add_version(), yard.add_version()

    async def launch_nothing(workload: object) -> None:
        raise FULL

    async with yard.run() as engine:
        await yard.roll(engine, good)
        monkeypatch.setattr(yard.runtime, "launch", launch_nothing)
        rollout = await yard.roll(engine, new)
        assert rollout.phase is RolloutPhase.FAILED
        assert rollout.failure is not None
        assert rollout.failure.status == 507
        assert await yard.served_version() == good


async def test_who_waits_for_a_rollout_that_cannot_be_recorded_is_told_and_it_goes_on_later(
    yard: Yard,
) -> None:
    version = yard.add_version()
    yard.answers.unready.add("sources/iris")
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
        assert rollout.phase is RolloutPhase.PROBING
        yard.store.fail_writes_with = FULL
        yard.answers.unready.clear()
        await yard.clock.advance(1)
        with pytest.raises(StorageFull, match=f"{rollout.id} goes on by itself when there is room"):
            await engine.wait_until(Rollout, rollout.id, lambda rollout: rollout.phase.terminal, None)
        assert await yard.served_version() is None
        yard.store.fail_writes_with = None
        await yard.clock.advance(10)
        done = await engine.wait_until(Rollout, rollout.id, lambda rollout: rollout.phase.terminal, 0)
        assert done.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == version


async def test_a_trainer_without_room_waits_in_plain_sight(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = yard.runtime.launch

    async def launch_nothing(workload: object) -> None:
        raise FULL

    async with yard.run() as engine:
        monkeypatch.setattr(yard.runtime, "launch", launch_nothing)
        training = await yard.train(engine)
        assert training.phase is TrainingPhase.STARTING
        assert training.waiting_on == FULL.message
        with pytest.raises(StorageFull):
            await engine.wait_until(Training, training.id, lambda training: training.phase.terminal, None)
        monkeypatch.setattr(yard.runtime, "launch", launch)
        await yard.clock.advance(5)
        running = await engine.store.get(Training, training.id)
        assert (running.phase, running.waiting_on) == (TrainingPhase.RUNNING, None)


async def test_nothing_is_begun_that_cannot_be_recorded(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        yard.store.fail_writes_with = FULL
        with pytest.raises(StorageFull):
            await engine.commands.start_rollout(RolloutRequest(name="Iris", ref=version), Caller())
        assert yard.runtime.launched == []
        assert await yard.store.find(Rollout) == []
