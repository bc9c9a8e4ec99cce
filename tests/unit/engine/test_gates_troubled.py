"""Gates that hang, and what else may go wrong while a candidate is judged."""

from pathlib import Path
from typing import Any

import pytest

from router.core.errors import RegistryUnavailable
from router.core.gates import GatePlan
from router.core.models import Rollout, RolloutPhase
from router.engine.engine import Engine
from router.engine.gates import runner
from router.engine.gates.base import Case, Ruling
from tests.unit.engine.candidates import WIDER, add_measured, add_version, gate, plan
from tests.unit.engine.yard import SPEC, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


class Hangs:
    name = "hangs"

    async def judge(self, case: Case) -> Ruling:
        await case.clock.sleep(1e9)
        raise AssertionError("it has been cancelled by then")


async def start(yard: Yard, engine: Engine, version: int, **fields: Any) -> Rollout:
    rollout = await yard.roll(engine, version, **fields)
    assert rollout.phase is RolloutPhase.GATING
    return rollout


async def test_a_gate_that_hangs_ends_inconclusive_at_its_deadline(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "make_gates", lambda plan: [Hangs()])
    version = add_version(yard)
    async with yard.run() as engine:
        rollout = await start(yard, engine, version, gate_plan=plan(deadline=200))
        await yard.clock.advance(199)  # longer than a candidate may take to get ready
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.GATING
        await yard.clock.advance(2)
        ended = await engine.store.get(Rollout, rollout.id)
        assert ended.phase is RolloutPhase.FAILED
        assert gate(ended, "hangs").reason == "no verdict within 200 s"


async def test_a_slow_gate_takes_nothing_of_the_candidates_own_time(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "make_gates", lambda plan: [Hangs()])
    version = add_version(yard)
    async with yard.run() as engine:
        slow = plan(deadline=200, inconclusive="pass")
        rollout = await start(yard, engine, version, gate_plan=slow)
        await yard.clock.advance(201)
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.SUCCEEDED


async def test_a_candidate_that_dies_while_it_is_judged_is_not_waited_for(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "make_gates", lambda plan: [Hangs()])
    version = add_version(yard)
    async with yard.run() as engine:
        rollout = await start(yard, engine, version)
        yard.runtime.end(str(rollout.server_id), 1)
        await yard.clock.settle()
        ended = await engine.store.get(Rollout, rollout.id)
        assert ended.failure is not None
        assert ended.failure.code == "candidate_unhealthy"
        assert "did not live to be judged" in ended.failure.message


async def test_a_rollout_is_aborted_while_a_gate_hangs(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "make_gates", lambda plan: [Hangs()])
    version = add_version(yard)
    async with yard.run() as engine:
        rollout = await start(yard, engine, version)
        await engine.steering.abort(rollout.id)
        await yard.clock.settle()
        assert (await engine.store.get(Rollout, rollout.id)).phase is RolloutPhase.ROLLED_BACK


async def test_a_router_that_dies_while_a_gate_judges_is_followed_by_one_that_asks_again(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(yard), add_version(yard, WIDER)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        with monkeypatch.context() as patch:
            patch.setattr(runner, "make_gates", lambda plan: [Hangs()])
            rollout = await start(yard, engine, 2)
    async with yard.run() as engine:
        ended = await engine.store.get(Rollout, rollout.id)
        assert ended.phase is RolloutPhase.SUCCEEDED
        assert [each.name for each in ended.gates] == ["probe", "signature"]


async def fail_registry_in_gating(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry goes down when the gates begin."""
    make_gates = runner.make_gates

    def begin(plan: GatePlan) -> Any:
        yard.registry.fail_with(RegistryUnavailable())
        return make_gates(plan)

    monkeypatch.setattr(runner, "make_gates", begin)


async def test_gates_wait_for_the_registry_and_then_judge(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(yard), add_version(yard, WIDER)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await fail_registry_in_gating(yard, monkeypatch)
        rollout = await start(yard, engine, 2)
        await yard.clock.advance(30)
        yard.registry.fail_with(None)
        await yard.clock.advance(1)
        ended = await engine.store.get(Rollout, rollout.id)
        assert (ended.phase, ended.warnings) == (RolloutPhase.SUCCEEDED, ())


async def test_a_registry_that_stays_away_makes_it_inconclusive_and_what_is_not_tagged_is_told(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(yard), add_version(yard, WIDER)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await fail_registry_in_gating(yard, monkeypatch)
        rollout = await start(yard, engine, 2)
        await yard.clock.advance(61)
        ended = await engine.store.get(Rollout, rollout.id)
        assert ended.phase is RolloutPhase.FAILED
        assert gate(ended, "signature").reason == "no verdict within 60 s: MLflow does not answer."
        assert "not among the version's tags" in ended.warnings[0]


async def test_the_gates_of_the_trainers_spec_hold_for_its_versions(yard: Yard) -> None:
    (yard.folder / "iris.yaml").write_text(SPEC + "  gates: {metric: {rmse: {max: 60}}}\n")
    version = await add_measured(yard, rmse=61)
    await yard.registry.set_version_tags("Iris", version, {"switchyard.trainer": "iris"})
    async with yard.run() as engine:
        by_hand = await yard.roll(engine, version)
        assert by_hand.failure is not None
        assert "metric failed: `rmse` is 61" in by_hand.failure.message
        assert (await yard.roll(engine, version, gate_plan=plan())).phase is RolloutPhase.SUCCEEDED
        training = await yard.train(engine, then_roll=True)
        assert training.roll is not None
        assert training.roll.gate_plan.metric["rmse"].max == 60
