"""A candidate that is healthy and worse, found out by real traffic through a real Caddy."""

from pathlib import Path

import pytest

from tests.integration.spine.stage import Trainer, add_trainer, owners, wait_for_end
from tests.services.clients import four_kinds_of_clients
from tests.services.yard import Yard

RATE = 150


@pytest.fixture(scope="module")
def trainer(yard: Yard) -> Trainer:
    """Its first version is active, served by `steady`."""
    trainer = add_trainer(yard)
    version = yard.post(f"/admin/train/{trainer.name}")["version"]
    yard.post("/admin/roll", roll(trainer, version, "steady"))
    return trainer


def roll(trainer: Trainer, version: int, source: str, **fields: object) -> dict[str, object]:
    return {"name": trainer.model, "ref": version, "serve_image": f"tests/sources/{source}", **fields}


@pytest.mark.parametrize("source", ["fails-now-and-then", "slow", "fails-under-load"])
def test_a_canary_that_does_worse_is_taken_back(
    yard: Yard, trainer: Trainer, source: str, tmp_path: Path
) -> None:
    before = yard.traffic()["active"]["server_id"]
    plan = {"strategy": "canary", "steps": [30, 100], "hold": 600}
    with four_kinds_of_clients(yard.public_url, tmp_path / "load.json", RATE):
        started = yard.post("/admin/roll", roll(trainer, 1, source, rollout=plan, wait_seconds=0), 202)
        rollout = wait_for_end(yard, started["id"])
    assert rollout["phase"] == "rolled_back"
    assert rollout["failure"]["code"] == "analysis_failed"
    assert rollout["steps"][-1]["finding"]["verdict"] == "failed"
    traffic = yard.traffic()
    assert (traffic["active"]["server_id"], traffic["candidate"]) == (before, None)
    assert rollout["server_id"] not in owners(yard)


def test_a_switch_that_does_worse_is_rolled_back_by_itself(
    yard: Yard, trainer: Trainer, tmp_path: Path
) -> None:
    before = yard.traffic()["active"]["server_id"]
    with four_kinds_of_clients(yard.public_url, tmp_path / "load.json", RATE):
        yard.wait_for(lambda: served_enough(yard), "traffic to compare with")
        request = roll(trainer, 1, "fails-now-and-then", rollout={"bake": 600}, reason="it looked well")
        rollout = wait_for_end(yard, yard.post("/admin/roll", request)["id"])
    assert rollout["phase"] == "rolled_back"
    assert yard.traffic()["active"]["server_id"] == before
    back = yard.call("GET", "/admin/rollouts?limit=1").json()[0]
    assert (back["kind"], back["requested_by"]) == ("rollback", "switchyard")


def test_a_canary_that_does_as_well_is_promoted(yard: Yard, trainer: Trainer, tmp_path: Path) -> None:
    plan = {"strategy": "canary", "steps": [30, 100], "hold": 1, "bake": 1}
    with four_kinds_of_clients(yard.public_url, tmp_path / "load.json", RATE) as load:
        started = yard.post("/admin/roll", roll(trainer, 1, "well", rollout=plan, wait_seconds=0), 202)
        rollout = wait_for_end(yard, started["id"])
    assert rollout["phase"] == "succeeded"
    assert [step["finding"]["verdict"] for step in rollout["steps"]] == ["passed", "passed"]
    assert load.report["failed"] == 0, load.report["reasons"]


def served_enough(yard: Yard) -> bool:
    return (yard.state / "access.log").read_bytes().count(b"\n") > 500
