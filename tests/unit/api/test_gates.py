"""Gates as callers see them: the plan of a request, what is answered, and the word that overrides."""

import math
from pathlib import Path

import pytest

from tests.unit.api.calls import calling, post_and_end
from tests.unit.engine.yard import EXAMPLE, Yard

AGE = {"inputs": [{"name": "age", "type": "double"}]}
YEARS = {"inputs": [{"name": "years", "type": "double"}]}
SECOND = {"name": "Iris", "ref": 2}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    """The second version has renamed the first one's column."""
    yard = Yard(tmp_path)
    for signature in (AGE, YEARS):
        yard.registry.add_version("Iris", signature=signature, input_example=EXAMPLE)
    return yard


async def test_a_candidate_that_a_gate_holds_back_answers_409_with_the_evidence(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        refused = await client.post("/admin/roll", json=SECOND)
        assert refused.status_code == 409
        answer = refused.json()
        assert answer["error"]["code"] == "gate_failed"
        assert "signature failed: input `age` is gone" in answer["error"]["message"]
        probe, signature = answer["detail"]["gates"]
        assert (probe["name"], probe["verdict"]) == ("probe", "passed")
        assert signature["evidence"]["breaks"][0] == "input `age` is gone"
        assert signature["ended"] >= signature["started"]
        assert await yard.served_version() == 1


async def test_force_with_a_reason_rolls_it_out_and_stands_in_the_record(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        answer = await client.post("/admin/roll", json={**SECOND, "force": True, "reason": "all moved"})
        assert answer.status_code == 200
        assert [gate["verdict"] for gate in answer.json()["gates"]] == ["passed", "failed"]
        assert "has overridden gates (all moved): signature failed" in answer.json()["warnings"][0]
        record = (await client.get(f"/admin/rollouts/{answer.json()['id']}")).json()
        assert (record["forced"], record["reason"]) == (True, "all moved")
        assert record["requested_by"] is not None


@pytest.mark.parametrize("path", ["/admin/roll", "/admin/train_then_roll/iris"])
@pytest.mark.parametrize("reason", [None, "", "  "])
async def test_force_without_a_reason_is_refused(yard: Yard, path: str, reason: str | None) -> None:
    body: dict[str, object] = {"force": True, "reason": reason} | (SECOND if "train" not in path else {})
    async with calling(yard) as (client, _):
        refused = await client.post(path, json=body)
        assert refused.status_code == 422
        assert "reason" in refused.text


@pytest.mark.parametrize(
    ("gates", "named"),
    [
        ({"challange": {}}, "body.gates.challange"),
        ({"metric": {"rmse": {"max": 1, "min": 2}}}, "body.gates.metric.rmse"),
        ({"metric": {"rmse": {"max": True}}}, "body.gates.metric.rmse.max"),
        ({"deadline": -1}, "body.gates.deadline"),
        ({"signature": 1}, "body.gates.signature"),
    ],
)
async def test_a_plan_that_cannot_be_meant_is_refused_before_anything_starts(
    yard: Yard, gates: dict[str, object], named: str
) -> None:
    async with calling(yard) as (client, _):
        refused = await client.post("/admin/roll", json={**SECOND, "gates": gates})
        assert refused.status_code == 422
        assert named in refused.json()["error"]["message"]
        assert yard.runtime.launched == []


async def test_a_request_may_bring_gates_of_its_own(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        answer = await client.post("/admin/roll", json={**SECOND, "gates": {"signature": False}})
        assert answer.status_code == 200
        assert [gate["name"] for gate in answer.json()["gates"]] == ["probe"]


@pytest.mark.parametrize(("limit", "status"), [(60, 200), (50, 409)])
async def test_what_was_trained_is_judged_by_its_runs_metrics(yard: Yard, limit: float, status: int) -> None:
    async with calling(yard) as (client, engine):
        answer = await post_and_end(
            yard,
            client,
            engine,
            "/admin/train_then_roll/iris",
            json={"gates": {"metric": {"rmse": {"max": limit}}}},
        )
        assert answer.status_code == status
        body = answer.json()
        gates = body["gates"] if status == 200 else body["detail"]["rollout_error"]["gates"]
        assert gates[-1]["evidence"]["metrics"]["rmse"]["value"] == 55


async def test_force_holds_for_the_rollout_that_a_training_has_promised(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        answer = await post_and_end(
            yard,
            client,
            engine,
            "/admin/train_then_roll/iris",
            json={"gates": {"metric": {"rmse": {"max": 50}}}, "force": True, "reason": "a demonstration"},
        )
        assert answer.status_code == 200
        assert "has overridden gates (a demonstration): metric failed" in answer.json()["warnings"][0]
        assert await yard.served_version() == answer.json()["version"]


async def test_a_metric_that_is_not_a_number_is_told_in_words(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        training = await yard.train(engine)
        yard.registry.log_metrics(str(training.run_id), {"rmse": math.nan, "mae": 1.5})
        yard.registry.add_version("Iris", training.run_id, input_example=EXAMPLE)
        yard.runtime.end(training.id, 0)
        await yard.clock.settle()
        shown = await client.get(f"/admin/trainings/{training.id}")
        assert shown.json()["metrics"] == {"rmse": "nan", "mae": 1.5}
        listed = await client.get("/admin/trainings")
        assert listed.json()[0]["metrics"]["rmse"] == "nan"
