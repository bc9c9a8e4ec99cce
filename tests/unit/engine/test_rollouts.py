"""Rollouts over memory drivers: who gets traffic when, and what is left when one fails."""

from pathlib import Path

import pytest

from router.core.errors import NothingToRollBackTo, RolloutInProgress
from router.core.models import Rollout, RolloutPhase, ServerPhase
from router.core.verdicts import Verdict
from router.engine.commands import Caller
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_a_rolled_out_version_gets_the_traffic_and_then_the_alias(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == version
        assert await yard.alias() == version
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.READY


async def test_a_candidate_that_fails_its_probe_never_gets_traffic(yard: Yard) -> None:
    good, bad = yard.add_version(), yard.add_version()
    yard.answers.unready.add("sources/broken")
    async with yard.run() as engine:
        await yard.roll(engine, good)
        rollout = await yard.roll(engine, bad, serve_image="sources/broken", wait_ready_seconds=5)
        assert rollout.phase is RolloutPhase.PROBING
        await yard.clock.advance(6)
        failed = await engine.store.get(Rollout, rollout.id)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.failure is not None
        assert failed.failure.status == 503
        assert await yard.served_version() == good
        assert await yard.alias() == good
        assert (await yard.server(failed.server_id)).phase is ServerPhase.STOPPED
        assert failed.server_id not in yard.runtime.running()


async def test_an_answer_that_is_not_finite_fails_the_candidate_at_once(yard: Yard) -> None:
    version = yard.add_version()
    yard.answers.predictions["sources/nan"] = [float("nan")]
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, serve_image="sources/nan")
        assert [(gate.name, gate.verdict) for gate in rollout.gates] == [("probe", Verdict.FAILED)]
        tags = (await yard.registry.version("Iris", version)).tags
        assert tags["switchyard.gate.probe"] == "failed"
        assert rollout.phase is RolloutPhase.FAILED
        assert rollout.failure is not None
        assert "not finite" in rollout.failure.message
        assert await yard.served_version() is None


async def test_the_previous_server_stays_warm_and_a_rollback_launches_nothing(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        await yard.clock.advance(1)
        assert (await yard.server(rollout.previous_server_id)).phase is ServerPhase.WARM
        launches = len(yard.runtime.launched)
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == first
        assert await yard.alias() == first
        again = await yard.roll_back(engine)
        assert again.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == second
        assert len(yard.runtime.launched) == launches


async def test_the_warm_server_is_stopped_after_its_window_and_a_rollback_starts_it_again(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        await yard.clock.advance(3700)
        assert (await yard.server(rollout.previous_server_id)).phase is ServerPhase.STOPPED
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.SUCCEEDED
        assert back.server_id != rollout.previous_server_id
        assert await yard.served_version() == first


async def test_a_warm_server_that_no_longer_answers_is_launched_anew_and_that_is_told(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        old = await yard.roll(engine, first, serve_image="sources/old")
        await yard.roll(engine, second)
        yard.answers.unready.add("sources/old")
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.PROBING
        (warning,) = back.warnings
        assert "was warm, but /ping answered 503" in warning
        yard.answers.unready.clear()
        await yard.clock.advance(5)
        ended = await engine.store.get(Rollout, back.id)
        assert ended.phase is RolloutPhase.SUCCEEDED
        assert ended.server_id not in {None, old.server_id}
        assert await yard.served_version() == first


async def test_a_rollback_whose_server_hangs_and_whose_image_is_gone_fails_at_once(
    yard: Yard,
) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first, serve_image="sources/old")
        await yard.roll(engine, second)
        yard.answers.unready.add("sources/old")
        yard.runtime.missing.add("sources/old")
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.FAILED
        assert back.failure is not None
        assert back.failure.code == "image_not_found"
        assert back.revision < 10
        assert await yard.served_version() == second


async def test_the_time_in_which_the_runtime_is_away_is_not_taken_from_a_rollback(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        await yard.roll(engine, second)
        rollback = await engine.commands.roll_back(Caller(), wait_ready_seconds=5)
        yard.runtime.unavailable = True
        await yard.clock.advance(8)
        yard.runtime.unavailable = False
        await yard.clock.advance(4)
        assert (await engine.store.get(Rollout, rollback)).phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == first


async def test_a_second_rollout_is_refused_with_the_id_of_the_first(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        running = await yard.roll(engine, first, serve_image="sources/slow")
        with pytest.raises(RolloutInProgress) as refused:
            await yard.roll(engine, second)
        assert refused.value.detail == {"rollout_id": running.id}


async def test_a_version_that_is_active_already_is_left_alone(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, version)
        again = await yard.roll(engine, version)
        assert again.phase is RolloutPhase.SUCCEEDED
        assert len(yard.runtime.launched) == 1


async def test_without_an_earlier_server_there_is_nothing_to_roll_back_to(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        with pytest.raises(NothingToRollBackTo):
            await yard.roll_back(engine)
        await yard.roll(engine, version)
        with pytest.raises(NothingToRollBackTo):
            await yard.roll_back(engine)


async def test_a_rollback_pushes_a_running_rollout_aside(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        await yard.roll(engine, first)
        running = await yard.roll(engine, second, serve_image="sources/slow")
        back = await yard.roll_back(engine)
        await yard.clock.advance(1)
        assert (await engine.store.get(Rollout, running.id)).phase is RolloutPhase.ROLLED_BACK
        assert back.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == first
        assert running.server_id not in yard.runtime.running()


async def test_an_aborted_rollout_leaves_the_active_server_as_it_was(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        await yard.roll(engine, first)
        running = await yard.roll(engine, second, serve_image="sources/slow")
        await engine.steering.abort(running.id)
        await yard.clock.advance(1)
        assert (await engine.store.get(Rollout, running.id)).phase is RolloutPhase.ROLLED_BACK
        assert await yard.served_version() == first
        assert running.server_id not in yard.runtime.running()


async def test_a_candidate_that_dies_while_it_is_probed_fails_the_rollout_at_once(yard: Yard) -> None:
    version = yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        running = await yard.roll(engine, version, serve_image="sources/slow")
        yard.runtime.output[str(running.server_id)] = "Traceback: no such model"
        yard.runtime.end(str(running.server_id), 3)
        await yard.clock.settle()
        failed = await engine.store.get(Rollout, running.id)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.logs_tail == "Traceback: no such model"
        assert failed.failure is not None
        assert "exit" in failed.failure.message
