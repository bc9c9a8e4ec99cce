"""The challenge in a rollout: what the servers answer decides; a champion that is gone leaves it open."""

import json
from typing import Any

import httpx
import pytest

from tests.integration.spine.stage import Trainer, add_trainer, light_traffic, wait_for_end, write_spec
from tests.services.yard import Yard

# A tiny server answers its version, so the first is right in every row, and the second off by one.
ROWS = json.dumps({"target": "y", "columns": ["x", "y"], "data": [[n, 1] for n in range(120)]})


@pytest.fixture
def trainer(yard: Yard) -> Trainer:
    trainer = add_trainer(yard, env={"HELD_OUT": ROWS})
    yard.post(f"/admin/train_then_roll/{trainer.name}")
    return trainer


def roll_next(yard: Yard, trainer: Trainer, status: int, **challenge: Any) -> dict[str, Any]:
    """Whatever it kept itself, and though it reports no error."""
    write_spec(yard, trainer, env={"HELD_OUT": ROWS.replace("1]", "2]"), "RMSE": 0})
    yard.wait_for(lambda: yard.get("/status")["spec_errors"] == [], "the spec")
    inconclusive = challenge.pop("inconclusive", "fail")
    gates = {"challenge": {"metric": "rmse", **challenge}, "inconclusive": inconclusive}
    answer = yard.post(f"/admin/train_then_roll/{trainer.name}", {"gates": gates}, status=status)
    rollout = answer["rollout_id"] if status == 200 else answer["detail"]["rollout_error"]["id"]
    return wait_for_end(yard, rollout)


def find_challenge(rollout: dict[str, Any]) -> dict[str, Any]:
    (gate,) = [gate for gate in rollout["gates"] if gate["name"] == "challenge"]
    return dict(gate)


def test_a_candidate_whose_predictions_are_bad_gets_no_traffic(yard: Yard, trainer: Trainer) -> None:
    before = yard.traffic()["active"]
    with light_traffic(yard) as seen:
        rollout = roll_next(yard, trainer, 409)
    gate = find_challenge(rollout)
    assert (rollout["phase"], gate["verdict"]) == ("failed", "failed")
    assert gate["reason"] == "rmse is 1, the champion's 0; it may be worse by 0"
    assert gate["evidence"]["scores"] == {"champion": {"rmse": 0.0}, "candidate": {"rmse": 1.0}}
    assert gate["evidence"]["champion"] == f"models:/{trainer.model}/1"
    assert gate["evidence"]["rows"] == 120
    assert seen.failures == []
    assert set(seen.served_by) == {before["address"]}


def test_one_that_is_as_good_as_was_asked_does(yard: Yard, trainer: Trainer) -> None:
    rollout = roll_next(yard, trainer, 200, tolerance=1)
    assert (rollout["phase"], find_challenge(rollout)["verdict"]) == ("succeeded", "passed")
    assert yard.predict().json()["predictions"] == [2]


def test_a_champion_whose_version_was_deleted_leaves_it_open(yard: Yard, trainer: Trainer) -> None:
    url = f"{yard.mlflow_url}/api/2.0/mlflow/model-versions/delete"
    body = {"name": trainer.model, "version": "1"}
    httpx.request("DELETE", url, json=body, timeout=30).raise_for_status()
    rollout = roll_next(yard, trainer, 409)
    gate = find_challenge(rollout)
    assert (rollout["phase"], gate["verdict"]) == ("failed", "inconclusive")
    assert gate["reason"].startswith("no held-out rows: ")
    assert roll_next(yard, trainer, 200, inconclusive="pass")["phase"] == "succeeded"


def test_a_file_that_is_not_there_leaves_it_open_and_one_outside_the_folder_is_refused(
    yard: Yard, trainer: Trainer
) -> None:
    rollout = roll_next(yard, trainer, 409, data="rows.json")
    assert "rows.json: cannot be read in" in find_challenge(rollout)["reason"]
    gates = {"challenge": {"metric": "rmse", "data": "../rows.json"}}
    refused = yard.post("/admin/roll", {"name": trainer.model, "ref": 1, "gates": gates}, status=422)
    assert "gates.challenge.data" in json.dumps(refused)
