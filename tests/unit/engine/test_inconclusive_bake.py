"""A bake with too little traffic: it is extended as far as that helps, or waits for a person, and says so."""

from pathlib import Path

import pytest

from router.core.errors import AlreadyFinished
from router.core.models import RolloutPhase
from router.core.verdicts import Verdict
from router.engine.commands import Caller
from tests.unit.engine.watched import ask, ask_for_a_while, let_misbehave, roll_beside, stored
from tests.unit.engine.yard import Yard

WAIT: dict[str, object] = {"bake": 60, "analysis": {"inconclusive": "wait"}}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """What served before has answered 500 requests, and is kept warm for an hour."""
    return Yard(tmp_path)


async def test_a_bake_with_too_little_traffic_is_extended_until_there_is_enough(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=60)
        ask(yard, 49)
        await yard.clock.advance(3000)
        extended = await stored(engine, rollout)
        assert extended.phase is RolloutPhase.BAKING
        assert extended.waiting_on == "too little traffic to judge the bake by: it is extended"
        ask(yard, 1)
        await yard.clock.advance(1)
        done = await stored(engine, rollout)
        assert (done.phase, done.warnings, done.waiting_on) == (RolloutPhase.SUCCEEDED, (), None)
        finding = done.steps[-1].finding
        assert finding is not None
        assert finding.verdict is Verdict.PASSED


async def test_an_extended_bake_goes_back_if_the_little_that_came_was_bad(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=60)
        await yard.clock.advance(1800)
        await let_misbehave(yard, rollout, status=500)
        await ask_for_a_while(yard)
        assert await yard.served_version() == 1
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_bake_is_extended_no_longer_than_what_served_before_is_kept_warm(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=60)
        ask(yard, 3)
        await yard.clock.advance(3599)
        assert (await stored(engine, rollout)).phase is RolloutPhase.BAKING
        await yard.clock.advance(2)
        done = await stored(engine, rollout)
        assert (done.phase, done.failure) == (RolloutPhase.SUCCEEDED, None)
        (warning,) = done.warnings
        assert warning == (
            "the bake has ended without a verdict: too few requests to tell: 3 of the candidate, 500 of the"
            " active one; 50 of each are needed; it was extended as long as what served before is kept warm"
        )
        finding = done.steps[-1].finding
        assert finding is not None
        assert finding.verdict is Verdict.INCONCLUSIVE
        assert any(event.text == warning for event in await engine.store.events(rollout.id))


async def test_a_bake_ends_on_time_where_there_is_nothing_to_compare_with(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, 49, bake=60)
        await yard.clock.advance(59)
        assert (await stored(engine, rollout)).phase is RolloutPhase.BAKING
        await yard.clock.advance(2)
        done = await stored(engine, rollout)
        assert done.phase is RolloutPhase.SUCCEEDED
        (warning,) = done.warnings
        assert "without a verdict" in warning
        assert "longer would not help" in warning


@pytest.mark.parametrize("before", [500, 0])
async def test_a_bake_without_a_verdict_waits_for_a_person_if_that_is_wanted(yard: Yard, before: int) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, before, **WAIT)
        await yard.clock.advance(61)
        paused = (await stored(engine, rollout)).paused
        assert paused is not None
        assert "it waits for a person: too few requests" in paused
        await yard.clock.advance(4_000)  # longer than what served before is kept warm
        assert (await stored(engine, rollout)).phase is RolloutPhase.BAKING
        await engine.steering.resume(rollout.id, "ann", "it is a demo")
        await yard.clock.settle()
        done = await stored(engine, rollout)
        assert done.phase is RolloutPhase.SUCCEEDED
        assert "a person has ended the bake without a verdict" in done.warnings[0]
        texts = [event.text for event in await engine.store.events(rollout.id)]
        assert "resumed by ann: it is a demo" in texts


async def test_a_bake_that_waits_for_a_person_is_watched_all_the_same(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **WAIT)
        await yard.clock.advance(61)
        await let_misbehave(yard, rollout, status=500)
        await ask_for_a_while(yard)
        assert await yard.served_version() == 1
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_bake_that_waits_for_a_person_keeps_nobody_out(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **WAIT)
        await yard.clock.advance(61)
        await engine.commands.roll_back(Caller())
        await yard.clock.advance(1)
        assert await yard.served_version() == 1
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_what_was_said_of_a_step_lets_no_bake_pass(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, strategy="canary", steps=[20], hold=30, **WAIT)
        await yard.clock.advance(31)
        await engine.steering.resume(rollout.id)
        await yard.clock.settle()
        baking = await stored(engine, rollout)
        assert (baking.phase, baking.paused) == (RolloutPhase.BAKING, None)
        with pytest.raises(AlreadyFinished):
            await engine.steering.resume(rollout.id)
        await yard.clock.advance(61)
        waiting = await stored(engine, rollout)
        assert (waiting.phase, waiting.paused is not None) == (RolloutPhase.BAKING, True)


async def test_a_pause_before_the_switch_holds_no_bake(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, strategy="canary", steps=[20], hold=600, bake=60)
        await engine.steering.pause(rollout.id)
        await engine.steering.promote(rollout.id)
        await yard.clock.settle()
        ask(yard, 50)
        await yard.clock.advance(61)
        assert (await stored(engine, rollout)).phase is RolloutPhase.SUCCEEDED
