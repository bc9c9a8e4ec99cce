"""Where users go back to when several things happen at once, or one while another is not done yet."""

from pathlib import Path

import pytest

from router.core.errors import NothingToRollBackTo
from router.core.models import Rollout, RolloutPhase, Server, ServerPhase
from router.core.strategies import Strategy
from router.core.traffic import Traffic
from router.core.workload import WorkloadState
from router.engine.commands import Caller
from router.engine.context import upstream_of
from router.engine.engine import Engine
from router.engine.rollbacks import RollbackRequest, Rollbacks
from router.engine.servers import Servers
from tests.unit.engine.slowness import let_logs_take, let_stops_take
from tests.unit.engine.yard import Yard

UNWATCHED = {"analysis": {"enabled": False}}
BAKING = Strategy.model_validate({"bake": 600, **UNWATCHED})
CANARY = Strategy.model_validate(
    {"strategy": "canary", "steps": [10, 100], "hold": 600, "bake": 0, **UNWATCHED}
)
REPLACE = Strategy(bake=0, if_tight="replace")
MIB = 2**20


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def active_server(yard: Yard) -> Server:
    active = (await yard.proxy.read_traffic("default")).active
    assert active is not None
    return await yard.server(active.server_id)


async def stored(engine: Engine, rollout: Rollout) -> Rollout:
    return await engine.store.get(Rollout, rollout.id)


# --- the new server dies --------------------------------------------------------------------------------


async def test_a_rollback_stays_where_users_have_just_been_taken_back_to(yard: Yard) -> None:
    """The supervisor has given the traffic back, and the rollout's own worker has not seen it yet."""
    async with yard.run() as engine:
        for plan in (None, None, BAKING):
            rollout = await yard.roll(engine, yard.add_version(), plan=plan)
    before = await yard.server((await yard.store.get(Rollout, rollout.id)).previous_server_id)
    await yard.proxy.set_traffic("default", Traffic(active=upstream_of(before)))
    rollbacks = Rollbacks(engine.context, Servers(engine.context))
    back, _ = await rollbacks.draft(RollbackRequest("default"))
    assert (back.server_id, back.version) == (before.id, 2)


async def test_a_bake_ends_as_soon_as_another_server_takes_over(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=BAKING)
        yard.runtime.end(str(rollout.server_id), 139)
        await yard.clock.settle()
        ended = await stored(engine, rollout)
        assert await yard.served_version() == 1
        assert ended.failure is not None
        assert ended.failure.code == "candidate_died"


async def test_an_image_that_dies_in_its_bake_is_told_though_the_version_is_the_one_before(
    yard: Yard,
) -> None:
    async with yard.run() as engine:
        version = yard.add_version()
        await yard.roll(engine, version)
        rollout = await yard.roll(engine, version, serve_image="sources/newer", plan=BAKING)
        assert rollout.phase is RolloutPhase.BAKING
        yard.runtime.end(str(rollout.server_id), 139)
        await yard.clock.settle()
        assert (await active_server(yard)).serve_image == "sources/iris"
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK


async def test_a_server_that_a_listing_does_not_know_yet_is_not_taken_for_dead(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version())
        list_owned, launched = yard.runtime.list_owned, len(yard.runtime.launched)

        async def list_without_the_newest() -> list[WorkloadState]:
            return [state for state in await list_owned() if state.owner != rollout.server_id]

        monkeypatch.setattr(yard.runtime, "list_owned", list_without_the_newest)
        await yard.clock.advance(60)
        assert (await active_server(yard)).id == rollout.server_id
        assert len(yard.runtime.launched) == launched


# --- a candidate that never had all of the traffic -------------------------------------------------------


async def expect_warm(yard: Yard, rollout: Rollout) -> None:
    """The supervisor keeps its server, as long as nobody has put that away."""
    await yard.clock.advance(yard.policy.sweep_seconds)
    assert (await yard.server(rollout.server_id)).phase is ServerPhase.WARM


async def test_a_candidate_that_is_being_put_away_takes_nobodys_place(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=CANARY)
        let_logs_take(yard, monkeypatch, 600)
        await engine.steering.abort(rollout.id)
        await expect_warm(yard, rollout)
        yard.runtime.end((await active_server(yard)).id, 137)
        await yard.clock.advance(yard.policy.sweep_seconds)
        heir = await active_server(yard)
        assert (heir.version, heir.id in yard.runtime.running()) == (1, True)


async def test_a_second_rollback_does_not_go_to_the_candidate_that_the_first_has_pushed_aside(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=CANARY)
        let_logs_take(yard, monkeypatch, 600)
        await yard.roll_back(engine)
        await expect_warm(yard, rollout)
        with pytest.raises(NothingToRollBackTo):
            await yard.roll_back(engine)


async def test_a_candidate_with_a_share_does_not_get_all_because_the_slots_are_lost(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=CANARY)
        yard.proxy._traffic["default"] = Traffic()  # put back, and nobody has said yet who had it
        engine.context.ledger.wakeups.notify(rollout.id)
        await yard.clock.settle()
        assert (await stored(engine, rollout)).phase is RolloutPhase.SHIFTING
        assert await yard.served_version() is None


async def test_a_candidate_whose_end_nobody_heard_of_gives_its_share_back(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=CANARY)
        yard.runtime.forget_callbacks()
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.advance(2 * yard.policy.sweep_seconds)
        assert (await yard.proxy.read_traffic("default")).candidate is None
        assert (await stored(engine, rollout)).phase is RolloutPhase.FAILED


# --- rollbacks in a row ----------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False])
async def test_a_rollback_right_after_an_aborted_one_goes_where_that_one_went(yard: Yard, warm: bool) -> None:
    async with yard.run() as engine:
        first = await yard.roll(engine, yard.add_version())
        await yard.roll(engine, yard.add_version())
        if not warm:
            yard.runtime.end(str(first.server_id), 137)
            await yard.clock.settle()
            yard.answers.unready.add(first.serve_image)
        aborted = await engine.commands.roll_back(Caller())
        if not warm:
            await yard.clock.settle()
        await engine.steering.abort(aborted)
        again = await engine.commands.roll_back(Caller())
        yard.answers.unready.clear()
        await yard.clock.advance(1)
        assert again != aborted
        assert (await engine.store.get(Rollout, aborted)).phase is RolloutPhase.ROLLED_BACK
        assert (await engine.store.get(Rollout, again)).phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == 1
        if warm:
            assert len(yard.runtime.launched) == 2


async def test_a_rollout_that_a_failed_rollback_has_ended_says_that_users_still_have_it(yard: Yard) -> None:
    async with yard.run() as engine:
        first = await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=BAKING)
        yard.runtime.end(str(first.server_id), 137)
        await yard.clock.settle()
        yard.answers.unready.add(first.serve_image)
        back = await engine.commands.roll_back(Caller(), wait_ready_seconds=5)
        await yard.clock.advance(10)
        assert (await engine.store.get(Rollout, back)).phase is RolloutPhase.FAILED
        ended = await stored(engine, rollout)
        assert (ended.phase, await yard.served_version()) == (RolloutPhase.ROLLED_BACK, 2)
        assert f"the rollback {back} ended before its switch: users still have this version" in ended.warnings


async def test_nobody_is_said_to_stay_whom_the_next_rollback_has_taken_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        rollout = await yard.roll(engine, yard.add_version(), plan=BAKING)
        let_logs_take(yard, monkeypatch, 60)
        aborted = await engine.commands.roll_back(Caller())
        await engine.steering.abort(aborted)
        await yard.roll_back(engine)
        assert await yard.served_version() == 1
        await yard.clock.advance(200)
        assert not any("users still have" in warning for warning in (await stored(engine, rollout)).warnings)


async def test_a_rollback_right_after_an_aborted_one_that_had_nothing_to_do_stays_there_too(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        let_stops_take(yard, monkeypatch, 8)
        await yard.roll(engine, yard.add_version())
        yard.runtime.memory_left = 10 * MIB
        await yard.roll(engine, yard.add_version(), plan=REPLACE)
        first = await yard.roll_back(engine)
        assert (first.version, first.phase, first.waiting_on is not None) == (2, RolloutPhase.PENDING, True)
        await engine.steering.abort(first.id)
        again = await yard.roll_back(engine)
        assert again.version == 2
        await yard.clock.advance(20)
        assert await yard.served_version() == 2


async def test_a_repeat_of_a_rollback_that_joined_another_one_begins_none(yard: Yard) -> None:
    async with yard.run() as engine:
        for version in (yard.add_version(), yard.add_version()):
            await yard.roll(engine, version)
        first = await engine.commands.roll_back(Caller())
        joined = Caller(key="joined", fingerprint="1")
        assert await engine.commands.roll_back(joined) == first
        await yard.clock.advance(1)
        assert await engine.commands.recall(joined) == first


# --- where the active server made room -------------------------------------------------------------------


async def roll_tightly(yard: Yard, engine: Engine) -> Rollout:
    """The second version, for which the first one's server has to stop, and which does not get ready."""
    await yard.roll(engine, yard.add_version())
    yard.runtime.memory_left = 10 * MIB
    yard.answers.unready.add("sources/slow")
    return await yard.roll(engine, yard.add_version(), serve_image="sources/slow", plan=REPLACE)


async def test_a_rollback_to_a_server_that_made_room_succeeds_when_one_in_its_place_runs(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_tightly(yard, engine)
        assert rollout.phase is RolloutPhase.PROBING
        yard.answers.unready.add("sources/iris")
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.PROBING
        yard.answers.unready.remove("sources/iris")
        await yard.clock.advance(1)
        assert (await stored(engine, back)).phase is RolloutPhase.SUCCEEDED
        active = await active_server(yard)
        assert (active.version, yard.runtime.running()) == (1, [active.id])
        assert len(yard.runtime.launched) == 3


async def test_a_rollback_finds_the_server_that_already_stands_where_room_was_made(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollout has failed, its log is slow to come, and the supervisor has launched what users had."""
    async with yard.run() as engine:
        let_logs_take(yard, monkeypatch, 60)
        rollout = await roll_tightly(yard, engine)
        yard.runtime.end(str(rollout.server_id), 1)
        await yard.clock.settle()
        assert (await stored(engine, rollout)).phase is RolloutPhase.ABORTING
        back = await yard.roll_back(engine)
        await yard.clock.advance(200)
        assert (await stored(engine, back)).phase is RolloutPhase.SUCCEEDED
        active = await active_server(yard)
        assert (active.version, yard.runtime.running()) == (1, [active.id])
        assert len(yard.runtime.launched) == 3
        assert yard.runtime.stopped.count(active.id) == 0


@pytest.mark.parametrize("told_by", ["rollback", "abort"])
async def test_a_server_that_is_being_stopped_to_make_room_is_stopped_and_comes_back(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    async with yard.run() as engine:
        let_stops_take(yard, monkeypatch, 8)
        rollout = await roll_tightly(yard, engine)
        assert rollout.phase is RolloutPhase.LAUNCHING
        before = await active_server(yard)
        if told_by == "rollback":
            await yard.roll_back(engine)
        else:
            await engine.steering.abort(rollout.id)
        await yard.clock.advance(20)
        assert yard.runtime.stopped[0] == before.id
        active = await active_server(yard)
        assert (active.version, yard.runtime.running()) == (1, [active.id])
        assert len(yard.runtime.launched) == 2
        assert (await stored(engine, rollout)).phase is RolloutPhase.ROLLED_BACK
