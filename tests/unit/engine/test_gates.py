"""What a candidate must pass before it gets traffic, over memory drivers and a fake clock."""

import json
from pathlib import Path
from typing import Any

import pytest

from router.core.errors import InvalidSpec
from router.core.gates import GateResult
from router.core.models import Rollout, RolloutPhase, ServerPhase
from router.core.strategies import Strategy
from router.core.verdicts import Verdict
from router.engine.commands import Caller, RolloutRequest
from tests.unit.engine.candidates import (
    DOUBLE,
    RENAMED,
    WIDER,
    add_measured,
    add_version,
    gate,
    plan,
    tags,
)
from tests.unit.engine.yard import EXAMPLE, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


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


async def test_gates_in_a_spec_that_cannot_be_read_do_not_fall_away(yard: Yard) -> None:
    version = yard.add_version()
    await yard.registry.set_version_tags("Iris", version, {"switchyard.trainer": "iris"})
    (yard.folder / "iris.yaml").write_text("iris: [")
    async with yard.run() as engine:
        with pytest.raises(InvalidSpec, match=r"the gates of trainer 'iris'.* cannot be read: .*iris\.yaml"):
            await yard.roll(engine, version)
        rollout = await yard.roll(engine, version, gate_plan=plan(), plan=Strategy(bake=0))
        assert rollout.phase is RolloutPhase.SUCCEEDED


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


async def test_a_version_from_a_new_image_need_not_be_better_than_itself(yard: Yard) -> None:
    version = await add_measured(yard, rmse=50)
    async with yard.run() as engine:
        await yard.roll(engine, version)
        bounds = {"rmse": {"better_than": "champion", "max": 60}}
        rollout = await yard.roll(engine, version, serve_image="sources/newer", gate_plan=plan(metric=bounds))
        assert rollout.phase is RolloutPhase.SUCCEEDED
        assert gate(rollout, "metric").verdict is Verdict.PASSED


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
