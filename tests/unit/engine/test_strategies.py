"""Rollouts by strategy, over memory drivers and a fake clock: what share the candidate has at which time."""

from pathlib import Path

import pytest

from router.core.errors import AlreadyFinished, NotShifting
from router.core.models import Rollout, RolloutPhase, ServerPhase
from router.core.strategies import Strategy
from router.core.traffic import Traffic
from router.engine.commands import Caller
from router.engine.engine import Engine
from tests.unit.engine.slowness import let_logs_take
from tests.unit.engine.yard import Yard

BY_TENS = Strategy.model_validate(
    {"strategy": "canary", "steps": [10, 50, 100], "hold": 30, "bake": 0, "analysis": {"enabled": False}}
)
BY_HAND = BY_TENS.model_copy(update={"promotion": "manual"})
AT_A_WORD = Strategy(promotion="manual", bake=0)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def share(yard: Yard) -> tuple[str | None, float]:
    """Who stands beside the active server, and with what share."""
    traffic = await yard.proxy.read_traffic("default")
    return traffic.candidate.server_id if traffic.candidate else None, traffic.weight


async def roll_beside(yard: Yard, engine: Engine, plan: Strategy) -> Rollout:
    """A second version, rolled out by this plan beside a first one."""
    first, second = yard.add_version(), yard.add_version()
    await yard.roll(engine, first)
    return await yard.roll(engine, second, plan=plan)


async def stored(engine: Engine, rollout: Rollout) -> Rollout:
    return await engine.store.get(Rollout, rollout.id)


async def test_a_canary_climbs_its_steps_and_is_then_promoted(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        assert rollout.phase is RolloutPhase.SHIFTING
        assert await share(yard) == (rollout.server_id, 10)
        await yard.clock.advance(29)
        assert await share(yard) == (rollout.server_id, 10)
        await yard.clock.advance(2)
        assert await share(yard) == (rollout.server_id, 50)
        assert await yard.alias() == 1
        await yard.clock.advance(31)
        assert await share(yard) == (None, 0)
        assert await yard.served_version() == 2
        assert await yard.alias() == 2
        done = await stored(engine, rollout)
        assert done.phase is RolloutPhase.SUCCEEDED
        assert [(step.weight, step.until is not None) for step in done.steps] == [
            (10, True),
            (50, True),
            (100, True),
        ]


async def test_the_first_model_of_an_endpoint_has_nobody_to_share_with(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, plan=BY_TENS)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == version


async def test_a_manual_canary_waits_at_its_last_share_until_it_is_promoted(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_HAND)
        await yard.clock.advance(1000)
        waiting = await stored(engine, rollout)
        assert waiting.phase is RolloutPhase.SHIFTING
        assert waiting.paused is not None
        assert await share(yard) == (rollout.server_id, 50)
        await engine.steering.promote(rollout.id)
        await yard.clock.settle()
        assert await yard.served_version() == 2


async def test_a_manual_blue_green_stands_beside_without_a_share_until_it_is_promoted(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, AT_A_WORD)
        assert await share(yard) == (rollout.server_id, 0)
        assert yard.proxy.answer("default", by_header=True) != yard.proxy.answer("default")
        await engine.steering.promote(rollout.id)
        await yard.clock.settle()
        assert await yard.served_version() == 2


async def test_a_paused_canary_stays_until_it_is_resumed(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        await engine.steering.pause(rollout.id)
        await yard.clock.advance(1000)
        assert await share(yard) == (rollout.server_id, 10)
        await engine.steering.resume(rollout.id)
        await yard.clock.settle()
        assert await share(yard) == (rollout.server_id, 50)
        with pytest.raises(NotShifting):
            await engine.steering.resume(rollout.id)


async def test_a_share_set_by_hand_holds_until_the_plan_goes_on_above_it(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        await engine.steering.set_weight(rollout.id, 33)
        await yard.clock.advance(1000)
        assert await share(yard) == (rollout.server_id, 33)
        await engine.steering.set_weight(rollout.id, 0)
        await yard.clock.settle()
        assert await share(yard) == (rollout.server_id, 0)
        await engine.steering.set_weight(rollout.id, 12)
        await engine.steering.resume(rollout.id)
        await yard.clock.advance(31)
        assert await share(yard) == (rollout.server_id, 50)


async def test_an_aborted_canary_gives_its_share_back_and_is_not_kept_for_a_rollback(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        await engine.steering.abort(rollout.id)
        await yard.clock.advance(1)
        assert await share(yard) == (None, 0)
        assert await yard.served_version() == 1
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.STOPPED
        with pytest.raises(AlreadyFinished):
            await engine.steering.promote(rollout.id)


async def test_an_aborted_canary_is_not_kept_though_its_log_is_slow_to_come(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its share it looks like any server that has lost its traffic, and those are kept."""
    let_logs_take(yard, monkeypatch, 2 * yard.policy.sweep_seconds)
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        await engine.steering.abort(rollout.id)
        await yard.clock.advance(yard.policy.sweep_seconds)
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.WARM
        await yard.clock.advance(5 * yard.policy.sweep_seconds)
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.STOPPED


async def test_a_rollback_during_a_canary_takes_the_share_away(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        back = await yard.roll_back(engine)
        assert await share(yard) == (None, 0)
        assert await yard.served_version() == 1
        await yard.clock.advance(1)
        assert back.phase is RolloutPhase.SUCCEEDED
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK
        assert rollout.server_id not in yard.runtime.running()


async def test_a_candidate_that_dies_with_a_share_gives_it_back_at_once(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        yard.runtime.end(str(rollout.server_id), 139)
        await yard.clock.settle()
        assert await share(yard) == (None, 0)
        failed = await stored(engine, rollout)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.failure is not None
        assert "exited with 139 while it had 10% of the traffic" in failed.failure.message


async def test_an_active_server_that_dies_is_replaced_and_the_candidate_keeps_its_share(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        dead = (await yard.proxy.read_traffic("default")).active
        assert dead is not None
        yard.runtime.end(dead.server_id, 137)
        await yard.clock.advance(1)
        traffic = await yard.proxy.read_traffic("default")
        assert traffic.active is not None
        assert (traffic.active.model_version, traffic.active.server_id != dead.server_id) == (1, True)
        assert await share(yard) == (rollout.server_id, 10)


async def test_another_router_goes_on_with_the_step_that_it_finds(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, BY_TENS)
        await yard.clock.advance(20)
    async with yard.run() as engine:
        assert await share(yard) == (rollout.server_id, 10)
        await yard.clock.advance(11)
        assert await share(yard) == (rollout.server_id, 50)
        await yard.clock.advance(31)
        assert await yard.served_version() == 2


async def test_a_rollout_that_a_person_takes_back_says_so(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, Strategy(bake=600, analysis=BY_TENS.analysis))
        await yard.roll_back(engine)
        taken_back = await stored(engine, rollout)
        assert taken_back.phase is RolloutPhase.ROLLED_BACK
        assert taken_back.failure is not None
        assert taken_back.failure.code == "rolled_back"


async def test_the_next_rollout_cuts_a_bake_short(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, Strategy(bake=600, analysis=BY_TENS.analysis))
        assert rollout.phase is RolloutPhase.BAKING
        third = await yard.roll(engine, yard.add_version())
        assert third.phase is RolloutPhase.SUCCEEDED
        assert (await stored(engine, rollout)).phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == 3


async def test_what_served_before_is_kept_for_the_whole_bake_whoever_writes_the_switch_down(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, bake = yard.proxy.set_traffic, 2 * yard.policy.warm_seconds
    plan = Strategy(bake=bake, analysis=BY_TENS.analysis)

    async def switch_and_stall(endpoint: str, traffic: Traffic) -> None:
        await switch(endpoint, traffic)
        if traffic.active is not None and traffic.active.model_version == 2:
            await yard.clock.sleep(1000)

    async with yard.run() as engine:
        monkeypatch.setattr(yard.proxy, "set_traffic", switch_and_stall)
        rollout = await roll_beside(yard, engine, plan)
        assert await yard.served_version() == 2
    monkeypatch.undo()
    before = await yard.server((await yard.store.get(Rollout, rollout.id)).previous_server_id)
    change = engine.context.ledger.moved(  # as the next router's supervisor may, before anything else
        before, "another server has the traffic", phase=ServerPhase.WARM, warm_until=yard.clock.now() + 1
    )
    await yard.store.apply(change)
    async with yard.run() as engine:
        assert (await stored(engine, rollout)).phase is RolloutPhase.BAKING
        kept = (await yard.server(before.id)).warm_until
        assert kept is not None
        assert kept >= yard.clock.now() + bake


async def test_what_only_a_shifting_rollout_can_do_is_refused_before_it_shifts(yard: Yard) -> None:
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        rollout = await yard.roll(engine, yard.add_version(), serve_image="sources/slow", plan=BY_TENS)
        for steer in (engine.steering.pause, engine.steering.resume):
            with pytest.raises(NotShifting):
                await steer(rollout.id)
        with pytest.raises(NotShifting):
            await engine.steering.set_weight(rollout.id, 10)


async def test_a_rollback_that_is_asked_twice_goes_back_once(yard: Yard) -> None:
    async with yard.run() as engine:
        for version in (yard.add_version(), yard.add_version()):
            await yard.roll(engine, version)
        first = await engine.commands.roll_back(Caller())
        second = await engine.commands.roll_back(Caller())
        assert second == first
        await yard.clock.advance(1)
        assert await yard.served_version() == 1


async def test_an_aborted_rollback_leaves_its_server_a_way_back(yard: Yard) -> None:
    async with yard.run() as engine:
        for version in (yard.add_version(), yard.add_version()):
            await yard.roll(engine, version)
        rollback = await engine.commands.roll_back(Caller())
        await engine.steering.abort(rollback)
        await yard.clock.advance(1)
        assert await yard.served_version() == 2
        await yard.roll_back(engine)
        assert await yard.served_version() == 1
