"""When two servers do not fit in memory: what is said, what is stopped, and what comes back."""

from pathlib import Path

import pytest

from router.core.models import Rollout, RolloutPhase
from router.core.strategies import Strategy
from router.engine.engine import Engine
from router.runtimes.base import Usage
from tests.unit.engine.slowness import let_stops_take
from tests.unit.engine.yard import Yard

MIB = 2**20
REPLACE = Strategy(bake=0, if_tight="replace")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """The memory runtime's servers use 64 MiB, so a second one needs 144."""
    return Yard(tmp_path)


async def roll_second(yard: Yard, engine: Engine, left: int, **fields: object) -> Rollout:
    first, second = yard.add_version(), yard.add_version()
    await yard.roll(engine, first)
    yard.runtime.memory_left = left
    return await yard.roll(engine, second, **fields)


async def test_a_candidate_that_does_not_fit_is_refused_before_anything_starts(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_second(yard, engine, 143 * MIB)
        assert rollout.phase is RolloutPhase.FAILED
        assert rollout.failure is not None
        assert rollout.failure.code == "no_memory_for_candidate"
        assert "144 MiB" in rollout.failure.message
        assert "expected gap" in str(rollout.failure.hint)
        assert len(yard.runtime.launched) == 1
        assert await yard.served_version() == 1


async def test_a_candidate_that_fits_is_launched_beside_the_active_server(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_second(yard, engine, 144 * MIB)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert rollout.warnings == ()


async def test_where_more_is_free_than_everything_uses_the_active_server_is_not_asked(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(owner: str) -> Usage | None:
        raise AssertionError(f"{owner} was asked")

    monkeypatch.setattr(yard.runtime, "usage", refuse)
    yard.runtime.memory_used = 200 * MIB
    async with yard.run() as engine:
        rollout = await roll_second(yard, engine, (250 + 64) * MIB)
        assert rollout.phase is RolloutPhase.SUCCEEDED


async def test_the_active_server_makes_room_if_that_is_wanted(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_second(yard, engine, 10 * MIB, plan=REPLACE)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == 2
        assert yard.runtime.stopped == [rollout.previous_server_id]
        assert "stopped first; expected gap" in rollout.warnings[0]
        assert len(yard.runtime.running()) == 1


async def test_the_server_that_made_room_comes_back_if_the_candidate_fails(yard: Yard) -> None:
    yard.answers.unready.add("sources/broken")
    async with yard.run() as engine:
        rollout = await roll_second(
            yard, engine, 10 * MIB, plan=REPLACE, serve_image="sources/broken", wait_ready_seconds=5
        )
        assert rollout.phase is RolloutPhase.PROBING
        assert len(yard.runtime.running()) == 1
        await yard.clock.advance(7)
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.FAILED
        assert await yard.served_version() == 1
        active = (await yard.proxy.read_traffic("default")).active
        assert active is not None
        assert yard.runtime.running() == [active.server_id]


async def test_a_rollback_that_does_not_fit_replaces(yard: Yard) -> None:
    async with yard.run() as engine:
        await roll_second(yard, engine, 144 * MIB)
        await yard.clock.advance(3700)
        yard.runtime.memory_left = 10 * MIB
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == 1


async def test_a_warm_server_makes_room_anyway(yard: Yard) -> None:
    async with yard.run() as engine:
        await roll_second(yard, engine, 144 * MIB)
        yard.runtime.memory_left = 80 * MIB
        third = await yard.roll(engine, yard.add_version())
        assert third.phase is RolloutPhase.SUCCEEDED
        assert third.warnings == ()


async def roll_slowly(yard: Yard, engine: Engine, version: int, seconds: float) -> Rollout:
    """Its server needs so long to its first answer."""
    yard.answers.unready.add("sources/iris")
    rollout = await yard.roll(engine, version, plan=REPLACE)
    await yard.clock.advance(seconds)
    yard.answers.unready.clear()
    await yard.clock.advance(20)
    return await engine.store.get(Rollout, rollout.id)


async def test_the_expected_gap_is_the_last_stop_and_the_last_start_together(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_stops_take(yard, monkeypatch, 3)
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await roll_slowly(yard, engine, first, 5)
        yard.runtime.memory_left = 10 * MIB
        guessed = await roll_slowly(yard, engine, second, 9)
        assert "about 15.0 s, 10.0 s to stop and 5.0 s to start" in guessed.warnings[0]
        assert guessed.stop_seconds == 3
        assert any("stopped in 3.0 s" in event.text for event in await engine.store.events(guessed.id))
        known = await roll_slowly(yard, engine, first, 9)
        assert "about 9.0 s, 3.0 s to stop and 6.0 s to start" in known.warnings[0]
        assert known.phase is RolloutPhase.SUCCEEDED


async def test_a_server_that_was_stopped_after_its_warm_window_tells_how_long_a_stop_takes(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_stops_take(yard, monkeypatch, 3)
    async with yard.run() as engine:
        await roll_second(yard, engine, 144 * MIB)
        await yard.clock.advance(3700)
        yard.runtime.memory_left = 10 * MIB
        refused = await yard.roll(engine, yard.add_version())
        assert refused.failure is not None
        assert "3.0 s to stop" in str(refused.failure.hint)
