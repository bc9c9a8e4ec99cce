"""What a candidate must pass before it gets traffic, over memory drivers and a fake clock."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.core.errors import RegistryUnavailable
from router.core.gates import GatePlan, GateResult
from router.core.models import Rollout, RolloutPhase, ServerPhase
from router.core.verdicts import Verdict
from router.engine.commands import Caller, RolloutRequest
from router.engine.engine import Engine
from router.engine.gates import runner
from router.engine.gates.base import Case, Ruling
from tests.unit.engine.yard import EXAMPLE, SPEC, Yard

DOUBLE = {"inputs": [{"name": "age", "type": "double"}], "outputs": [{"type": "double"}]}
WIDER = {"inputs": [*DOUBLE["inputs"], {"name": "sex", "type": "string", "required": False}]} | {
    "outputs": DOUBLE["outputs"]
}
RENAMED = {"inputs": [{"name": "years", "type": "double"}], "outputs": [{"type": "double"}]}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def add_version(
    yard: Yard, signature: dict[str, Any] | None = DOUBLE, run_id: str | None = None, example: bytes = EXAMPLE
) -> int:
    return yard.registry.add_version("Iris", run_id, signature=signature, input_example=example).version


async def add_run(yard: Yard, training_id: str, **metrics: float) -> str:
    run_id = await yard.registry.create_run("iris", training_id, {})
    yard.registry.log_metrics(run_id, metrics)
    return run_id


async def add_measured(yard: Yard, **metrics: float) -> int:
    return add_version(yard, run_id=await add_run(yard, yard.ids.new("trn"), **metrics))


def plan(**fields: object) -> GatePlan:
    return GatePlan.model_validate(fields)


def gate(rollout: Rollout, name: str) -> GateResult:
    return next(each for each in rollout.gates if each.name == name)


async def tags(yard: Yard, version: int) -> dict[str, str]:
    return (await yard.registry.version("Iris", version)).tags


async def test_what_each_gate_said_is_in_the_record_and_among_the_tags_of_the_version(yard: Yard) -> None:
    add_version(yard), add_version(yard, WIDER)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2)
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert [(each.name, each.verdict) for each in rollout.gates] == [
            ("probe", Verdict.PASSED),
            ("signature", Verdict.PASSED),
        ]
        assert gate(rollout, "signature").evidence["notes"] == ["input `sex` is new and optional"]
        assert gate(rollout, "probe").evidence["rows"] == 1
        told = await tags(yard, 2)
        assert told["switchyard.gate.signature"] == "passed"
        assert told["switchyard.gate.signature.reason"] == "input `sex` is new and optional"
        assert told["switchyard.gate.probe"] == "passed"


async def test_a_candidate_with_a_renamed_column_never_gets_traffic(yard: Yard) -> None:
    add_version(yard), add_version(yard, RENAMED)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2)
        assert rollout.phase is RolloutPhase.FAILED
        assert rollout.failure is not None
        assert (rollout.failure.code, rollout.failure.status) == ("gate_failed", 409)
        assert "signature failed: input `age` is gone" in rollout.failure.message
        assert gate(rollout, "signature").verdict is Verdict.FAILED
        assert "shifting" not in rollout.entered
        assert await yard.served_version() == 1
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.STOPPED
        assert (await tags(yard, 2))["switchyard.gate.signature"] == "failed"


async def test_force_overrides_a_gate_and_says_who_and_why(yard: Yard) -> None:
    add_version(yard), add_version(yard, RENAMED)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2, forced=True, reason="clients are ready")
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert rollout.forced
        (warning,) = rollout.warnings
        assert warning.startswith("somebody has overridden gates (clients are ready): signature failed")
        assert await yard.served_version() == 2
        events = await engine.store.events(rollout.id)
        assert warning in [event.text for event in events]
        assert (await tags(yard, 2))["switchyard.gate.signature"] == "failed"


async def test_a_rollback_asks_no_gate_but_the_probe(yard: Yard) -> None:
    add_version(yard), add_version(yard, RENAMED)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        second = await yard.roll(engine, 2, gate_plan=plan(signature=False))
        first = await yard.server(second.previous_server_id)
        yard.runtime.end(first.id, 1)
        await yard.clock.settle()
        back = await yard.roll_back(engine)
        assert back.phase is RolloutPhase.SUCCEEDED
        assert [each.name for each in back.gates] == ["probe"]
        assert await yard.served_version() == 1


@pytest.mark.parametrize(("asked", "phase"), [(None, RolloutPhase.SUCCEEDED), (True, RolloutPhase.FAILED)])
async def test_another_model_is_compared_only_if_that_is_asked_for(
    yard: Yard, asked: bool | None, phase: RolloutPhase
) -> None:
    add_version(yard)
    yard.registry.add_version("Other", signature=RENAMED, input_example=EXAMPLE)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        wanted = RolloutRequest(name="Other", ref=1, gate_plan=plan(signature=asked))
        started = await engine.commands.start_rollout(wanted, Caller())
        await yard.clock.settle()
        assert (await engine.store.get(Rollout, started)).phase is phase


@pytest.mark.parametrize(
    ("theirs", "ours", "verdict"),
    [(None, None, "passed"), (None, DOUBLE, "passed"), (DOUBLE, None, "failed")],
)
async def test_a_missing_signature(yard: Yard, theirs: Any, ours: Any, verdict: str) -> None:
    add_version(yard, theirs), add_version(yard, ours)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        assert gate(await yard.roll(engine, 2), "signature").verdict == verdict


async def test_the_first_model_of_an_endpoint_has_nothing_to_be_compared_with(yard: Yard) -> None:
    version = await add_measured(yard, rmse=50)
    async with yard.run() as engine:
        bound = {"rmse": {"better_than": "champion", "lower_is_better": True}}
        rollout = await yard.roll(engine, version, gate_plan=plan(metric=bound))
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert gate(rollout, "signature").reason == "no active model is there to compare with"
        assert "no champion is there" in gate(rollout, "metric").reason


# --- metrics --------------------------------------------------------------------------------------------


async def judge_metric(
    yard: Yard, bound: dict[str, Any], ours: float | None, theirs: float | None = 50.0
) -> GateResult:
    """Of a second version, whose metric is `ours`, against a first one."""
    await add_measured(yard, **({} if theirs is None else {"rmse": theirs}))
    await add_measured(yard, **({} if ours is None else {"rmse": ours}))
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2, gate_plan=plan(metric={"rmse": bound}))
        result = gate(rollout, "metric")
        passed = result.verdict is Verdict.PASSED
        assert rollout.phase is (RolloutPhase.SUCCEEDED if passed else RolloutPhase.FAILED)
        return result


@pytest.mark.parametrize(
    ("bound", "ours", "verdict", "said"),
    [
        ({"max": 60}, 55, "passed", "`rmse` is 55, at most 60 is allowed"),
        ({"max": 60}, 60, "passed", ""),
        ({"max": 60}, 61, "failed", "`rmse` is 61, at most 60 is allowed"),
        ({"min": 60}, 55, "failed", "at least 60 is wanted"),
        ({"max": 60}, None, "failed", "the run has no metric `rmse`"),
        ({"max": 60}, float("nan"), "failed", "`rmse` is nan"),
        ({"max": 60}, float("inf"), "failed", "`rmse` is inf"),
        ({"max": 60, "better_than": "champion"}, 49, "passed", ""),
        ({"max": 60, "better_than": "champion"}, 50, "failed", "the champion's 50; it must be better"),
        ({"better_than": "champion", "lower_is_better": False}, 51, "passed", ""),
        ({"better_than": "champion", "lower_is_better": False}, 49, "failed", "it must be better"),
        ({"better_than": "champion", "lower_is_better": True, "tolerance": 0}, 50, "passed", ""),
        ({"better_than": "champion", "lower_is_better": True, "tolerance": 2}, 52, "passed", ""),
        ({"better_than": "champion", "lower_is_better": True, "tolerance": 2}, 52.1, "failed", "worse by 2"),
        ({"better_than": "champion", "max": 90, "relative_tolerance": 0.1}, 54, "passed", ""),
        ({"better_than": "champion", "max": 90, "relative_tolerance": 0.1}, 56, "failed", "worse by 5"),
    ],
)
async def test_a_metric_is_held_to_its_bounds(
    yard: Yard, bound: dict[str, Any], ours: float | None, verdict: str, said: str
) -> None:
    result = await judge_metric(yard, bound, ours)
    assert result.verdict == verdict
    assert said in result.reason
    json.dumps(result.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize("theirs", [None, float("nan")])
async def test_a_champion_without_the_metric_makes_it_inconclusive_which_stops_the_rollout(
    yard: Yard, theirs: float | None
) -> None:
    result = await judge_metric(yard, {"max": 60, "better_than": "champion"}, 40, theirs)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "`rmse` to compare 40 with" in result.reason


async def test_inconclusive_passes_where_the_plan_says_so(yard: Yard) -> None:
    await add_measured(yard)
    await add_measured(yard, rmse=40)
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        bounds = {"rmse": {"max": 60, "better_than": "champion"}}
        rollout = await yard.roll(engine, 2, gate_plan=plan(metric=bounds, inconclusive="pass"))
        assert gate(rollout, "metric").verdict is Verdict.INCONCLUSIVE
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert "it went on all the same: metric inconclusive: the champion's run" in rollout.warnings[0]


async def test_a_version_without_a_run_fails_a_gate_on_metrics(yard: Yard) -> None:
    version = add_version(yard)
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, gate_plan=plan(metric={"rmse": {"max": 60}}))
        assert gate(rollout, "metric").reason == "models:/Iris/1 has no run, so no metrics"
        assert rollout.phase is RolloutPhase.FAILED


# --- the probe ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        ([1.0, 2.0], "1 rows were asked and 2 predictions were answered"),
        (["high"], 'is "high" and the signature promises double'),
    ],
)
async def test_an_answer_of_another_shape_fails_the_probe_and_can_be_forced(
    yard: Yard, answered: list[object], said: str
) -> None:
    version = add_version(yard)
    yard.answers.predictions["sources/iris"] = answered
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
        assert rollout.phase is RolloutPhase.FAILED
        assert said in gate(rollout, "probe").reason
        assert await yard.served_version() is None
        forced = await yard.roll(engine, version, forced=True, reason="a forecast")
        assert forced.phase is RolloutPhase.SUCCEEDED


async def test_no_word_of_a_person_helps_a_candidate_that_answers_nothing_finite(
    yard: Yard,
) -> None:
    version = add_version(yard)
    yard.answers.predictions["sources/iris"] = [None]
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version, forced=True, reason="it must")
        assert rollout.failure is not None
        assert rollout.failure.code == "candidate_unhealthy"
        assert await yard.served_version() is None


# --- what may go wrong ----------------------------------------------------------------------------------


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
