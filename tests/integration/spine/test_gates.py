"""Gates over a real MLflow and real servers: what holds a candidate back, and who may override it."""

from typing import Any

import pytest

from tests.integration.spine.stage import (
    Trainer,
    add_trainer,
    light_traffic,
    read_versions,
    wait_for_end,
    write_spec,
)
from tests.services.yard import Yard

OUTPUTS = [{"type": "long", "required": True}]
AGE = {"inputs": [{"name": "age", "type": "double", "required": True}], "outputs": OUTPUTS}
YEARS = {"inputs": [{"name": "years", "type": "double", "required": True}], "outputs": OUTPUTS}
FRACTIONS = {**AGE, "outputs": [{"type": "string", "required": True}]}
BOUND = {"metric": {"rmse": {"max": 60, "better_than": "champion"}}}


@pytest.fixture
def trainer(yard: Yard) -> Trainer:
    """Its first version is active; the second must be better than that."""
    trainer = add_trainer(yard, env={"SIGNATURE": AGE, "RMSE": 50})
    yard.post(f"/admin/train_then_roll/{trainer.name}", {"rollout": {"bake": 0}})
    return trainer


def roll_next(yard: Yard, trainer: Trainer, status: int, **fields: Any) -> dict[str, Any]:
    """What train_then_roll answers for a version with this signature and metric."""
    env = {"SIGNATURE": fields.pop("signature", AGE), "RMSE": fields.pop("rmse", 40)}
    write_spec(yard, trainer, env=env, gates=BOUND, rollout={"bake": 0})
    yard.wait_for(lambda: yard.get("/status")["spec_errors"] == [], "the spec")
    return yard.post(f"/admin/train_then_roll/{trainer.name}", fields, status=status)


def tags(yard: Yard, trainer: Trainer, version: int) -> dict[str, str]:
    found = read_versions(yard, trainer.model)[version].get("tags", [])
    return {tag["key"]: tag["value"] for tag in found}


def test_a_better_version_passes_and_carries_the_verdicts_as_tags(yard: Yard, trainer: Trainer) -> None:
    answer = roll_next(yard, trainer, 200)
    assert {gate["name"]: gate["verdict"] for gate in answer["gates"]} == {
        "probe": "passed",
        "signature": "passed",
        "metric": "passed",
    }
    told = tags(yard, trainer, 2)
    assert told["switchyard.gate.metric"] == "passed"
    assert told["switchyard.gate.metric.reason"].endswith("the champion's 50; it must be better")
    assert wait_for_end(yard, answer["rollout_id"])["phase"] == "succeeded"


@pytest.mark.parametrize(
    ("fields", "name", "said"),
    [
        ({"signature": YEARS}, "signature", "input `age` is gone"),
        ({"rmse": 51}, "metric", "`rmse` is 51, the champion's 50; it must be better"),
        ({"rmse": "nan"}, "metric", "`rmse` is nan"),
        ({"signature": FRACTIONS}, "probe", "the signature promises string"),
    ],
)
def test_a_version_that_does_not_pass_gets_no_traffic(
    yard: Yard, trainer: Trainer, fields: dict[str, Any], name: str, said: str
) -> None:
    before = yard.traffic()["active"]
    with light_traffic(yard) as seen:
        answer = roll_next(yard, trainer, 409, **fields)
        rollout = wait_for_end(yard, answer["detail"]["rollout_error"]["id"])
    assert answer["error"]["code"] == "gate_failed"
    (gate,) = [gate for gate in rollout["gates"] if gate["name"] == name]
    assert (gate["verdict"], rollout["phase"]) == ("failed", "failed")
    assert said in gate["reason"]
    assert tags(yard, trainer, 2)[f"switchyard.gate.{name}"] == "failed"
    assert seen.failures == []
    assert set(seen.served_by) == {before["address"]}
    assert yard.traffic()["active"] == before


def test_force_overrides_and_a_rollback_asks_nothing(yard: Yard, trainer: Trainer) -> None:
    refused = roll_next(yard, trainer, 409, signature=YEARS)
    version = refused["detail"]["training"]["version"]
    body = {"name": trainer.model, "ref": version, "force": True, "reason": "all clients have moved"}
    answer = yard.post("/admin/roll", body)
    assert "has overridden gates (all clients have moved): signature failed" in answer["warnings"][0]
    record = wait_for_end(yard, answer["id"])
    assert (record["forced"], record["reason"]) == (True, "all clients have moved")
    assert yard.predict().json()["predictions"] == [version]
    assert yard.post("/admin/rollback")["version"] == 1
