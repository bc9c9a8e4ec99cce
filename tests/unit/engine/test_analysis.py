"""The watch over a candidate, over memory drivers: when it does worse, as well, or when nobody can tell."""

from pathlib import Path

import pytest

from router.core.errors import NothingToRollBackTo, NotShifting, RegistryUnavailable
from router.core.models import Rollout, RolloutPhase
from router.core.verdicts import Verdict
from router.proxies.base import Sample
from tests.unit.engine.watched import CANARY, ENOUGH, ask, ask_for_a_while, let_misbehave, roll_beside, stored
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


@pytest.mark.parametrize(("status", "seconds"), [(500, 0.001), (422, 0.001), (200, 0.05)])
async def test_a_candidate_that_does_worse_loses_its_share_without_anybodys_help(
    yard: Yard, status: int, seconds: float
) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        await let_misbehave(yard, rollout, status, seconds)
        await ask_for_a_while(yard)
        traffic = await yard.proxy.read_traffic("default")
        assert (traffic.candidate, traffic.weight) == (None, 0)
        ended = await stored(engine, rollout)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        assert ended.failure is not None
        assert ended.failure.code == "analysis_failed"
        finding = ended.steps[-1].finding
        assert finding is not None
        assert finding.verdict is Verdict.FAILED
        assert await yard.alias() == 1
        assert rollout.server_id not in yard.runtime.running()


async def test_a_candidate_that_was_given_everything_by_hand_is_watched_all_the_same(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        await engine.steering.set_weight(rollout.id, 100)
        await yard.clock.settle()
        await let_misbehave(yard, rollout, 500)
        await ask_for_a_while(yard)
        assert (await yard.proxy.read_traffic("default")).candidate is None
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_candidate_that_hangs_at_its_promotion_loses_its_share_at_once(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        yard.answers.unready.add(rollout.serve_image)
        await engine.steering.promote(rollout.id)
        await yard.clock.advance(5)
        assert (await yard.proxy.read_traffic("default")).candidate is None
        ended = await stored(engine, rollout)
        assert (ended.phase, ended.failure and ended.failure.code) == (
            RolloutPhase.FAILED,
            "candidate_unhealthy",
        )


async def test_the_watch_goes_on_where_the_alias_cannot_follow(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, strategy="canary", steps=[20], hold=600, bake=60)
        yard.registry.delete_version("Iris", 2)
        await engine.steering.promote(rollout.id)
        await yard.clock.settle()
        baking = await stored(engine, rollout)
        assert baking.phase is RolloutPhase.BAKING
        assert any("after the switch" in warning for warning in baking.warnings)
        await let_misbehave(yard, rollout, 500)
        await ask_for_a_while(yard)
        assert await yard.served_version() == 1


async def test_the_watch_keeps_its_pace_while_the_registry_is_away(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, strategy="canary", steps=[20], hold=600, bake=60)
        yard.registry.fail_with(RegistryUnavailable())
        await engine.steering.promote(rollout.id)
        await yard.clock.advance(60)  # long enough for the longest pause between two tries
        assert (await stored(engine, rollout)).phase is RolloutPhase.PROMOTING
        await let_misbehave(yard, rollout, 500)
        await ask_for_a_while(yard)
        assert await yard.served_version() == 1


async def test_what_a_watch_may_go_back_to_is_kept_as_long_as_it_lasts(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=7200)
        await yard.clock.advance(7000)
        before = await yard.server((await stored(engine, rollout)).previous_server_id)
        assert before.id in yard.runtime.running()
        await yard.clock.advance(500)
        assert before.id not in yard.runtime.running()


async def test_a_candidate_that_does_as_well_takes_its_steps(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        for _ in range(2):
            ask(yard, ENOUGH)
            await yard.clock.advance(31)
        assert await yard.served_version() == 2
        ask(yard, ENOUGH)
        await yard.clock.advance(61)
        done = await stored(engine, rollout)
        assert done.phase is RolloutPhase.SUCCEEDED
        assert [step.finding.verdict for step in done.steps if step.finding] == [Verdict.PASSED] * 3
        assert done.warnings == ()


async def test_a_step_with_too_little_traffic_is_held_until_there_is_enough(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        await yard.clock.advance(1000)
        assert (await yard.proxy.read_traffic("default")).weight == 20
        held = await stored(engine, rollout)
        assert held.waiting_on == "too little traffic to judge this step by: it is extended"
        ask(yard, ENOUGH)
        await yard.clock.advance(1)
        assert (await yard.proxy.read_traffic("default")).weight == 50
        went_on = await stored(engine, rollout)
        assert (went_on.paused, went_on.waiting_on) == (None, None)


async def test_a_person_may_resume_a_step_that_is_extended(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        with pytest.raises(NotShifting):
            await engine.steering.resume(rollout.id)
        await yard.clock.advance(40)
        await engine.steering.resume(rollout.id)
        await yard.clock.settle()
        assert (await yard.proxy.read_traffic("default")).weight == 50


async def test_too_little_traffic_waits_for_a_person_if_that_is_wanted(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY, analysis={"inconclusive": "wait"})
        await yard.clock.advance(31)
        paused = (await stored(engine, rollout)).paused
        assert paused is not None
        assert "too few requests" in paused
        await engine.steering.resume(rollout.id)
        await yard.clock.settle()
        assert (await yard.proxy.read_traffic("default")).weight == 50


async def test_a_server_that_does_worse_after_the_switch_is_rolled_back_by_itself(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=60)
        assert rollout.phase is RolloutPhase.BAKING
        await let_misbehave(yard, rollout, status=500)
        await ask_for_a_while(yard)
        assert await yard.served_version() == 1
        await yard.clock.advance(1)
        assert await yard.alias() == 1
        ended = await stored(engine, rollout)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        assert ended.failure is not None
        assert ended.failure.code == "analysis_failed"
        (back,) = [r for r in await engine.store.find(Rollout) if r.kind == "rollback"]
        assert (back.requested_by, back.phase) == ("switchyard", RolloutPhase.SUCCEEDED)
        assert back.reason == ended.failure.message
        assert rollout.server_id not in yard.runtime.running()
        with pytest.raises(NothingToRollBackTo):
            await yard.roll_back(engine)


async def test_a_server_that_dies_in_its_bake_is_replaced_by_the_one_before(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=60)
        yard.runtime.end(str(rollout.server_id), 139)
        await yard.clock.advance(1)
        assert await yard.served_version() == 1
        ended = await stored(engine, rollout)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        assert ended.failure is not None
        assert ended.failure.code == "candidate_died"
        assert await yard.alias() == 1


async def test_a_rollback_in_a_bake_goes_back_also_if_the_server_was_replaced_meanwhile(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=600)
        await yard.clock.advance(1)
        yard.runtime.end(str(rollout.previous_server_id), 137)
        await yard.clock.advance(1)
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.advance(1)
        assert await yard.served_version() == 2
        await yard.roll_back(engine)
        assert await yard.served_version() == 1


async def test_a_watch_begins_anew_after_a_change_of_routers(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        ask(yard, 200)
        await yard.clock.advance(1)
    async with yard.run() as engine:
        await let_misbehave(yard, rollout, status=500)
        await yard.clock.advance(1)
        await ask_for_a_while(yard)
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_rollback_is_not_watched(yard: Yard) -> None:
    async with yard.run() as engine:
        await roll_beside(yard, engine, bake=60)
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.SUCCEEDED


async def test_a_breach_ends_a_canary_also_while_the_runtime_is_away(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        await let_misbehave(yard, rollout, status=500)
        yard.runtime.unavailable = True
        await ask_for_a_while(yard)
        assert (await yard.proxy.read_traffic("default")).candidate is None
        yard.runtime.unavailable = False
        await yard.clock.advance(5)
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_watch_that_breaks_ends_its_rollout_and_nothing_else(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fall_over(cursor: str | None) -> tuple[list[Sample], str]:
        raise TypeError("a line that nobody thought of")

    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        with monkeypatch.context() as broken:
            broken.setattr(yard.proxy, "samples", fall_over)
            await yard.clock.advance(5)
        failed = await stored(engine, rollout)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.failure is not None
        assert "a line that nobody thought of" in failed.failure.message
        await yard.clock.advance(5)
        third = await yard.roll(engine, yard.add_version())
        assert third.phase is RolloutPhase.SUCCEEDED
