"""A canary over a real Caddy and real servers: its share, its steps, and the way back."""

from collections import Counter
from typing import Any

import pytest

from tests.integration.spine.stage import Trainer, add_trainer, light_traffic, wait_for_end
from tests.services.yard import Yard

STEPS = {"strategy": "canary", "bake": 0, "analysis": {"enabled": False}}


@pytest.fixture
def trainer(yard: Yard) -> Trainer:
    """Its first version is active."""
    trainer = add_trainer(yard)
    yard.post(f"/admin/train_then_roll/{trainer.name}")
    return trainer


def roll_beside(yard: Yard, trainer: Trainer, **fields: object) -> str:
    """A second version beside the active one: the rollout's path."""
    version = yard.post(f"/admin/train/{trainer.name}")["version"]
    body = {"name": trainer.model, "ref": version, "wait_seconds": 0, "rollout": {**STEPS, **fields}}
    return str(yard.post("/admin/roll", body, status=202)["location"])


def start_canary(yard: Yard, trainer: Trainer, **fields: object) -> tuple[str, str]:
    """The rollout's path and the candidate's address, once it has the share that it keeps for a while."""
    path = roll_beside(yard, trainer, **fields)
    yard.wait_for(lambda: yard.traffic()["candidate"] is not None, "a share for the candidate")
    return path, yard.traffic()["candidate"]["address"]


def served(yard: Yard, requests: int, **options: Any) -> Counter[str]:
    return Counter(yard.predict(**options).headers["x-served-by"] for _ in range(requests))


def test_a_canary_takes_its_steps_by_itself_and_loses_nothing(yard: Yard, trainer: Trainer) -> None:
    with light_traffic(yard) as seen:
        path = roll_beside(yard, trainer, steps=[20, 60, 100], hold=1)
        rollout = wait_for_end(yard, path.rpartition("/")[2])
    assert rollout["phase"] == "succeeded", rollout["failure"]
    assert [step["weight"] for step in rollout["steps"]] == [20, 60, 100]
    assert seen.failures == []
    active = yard.traffic()["active"]
    assert active["server_id"] == rollout["server_id"]
    assert set(served(yard, 5)) == {active["address"]}


def test_the_header_reaches_a_candidate_that_waits_for_a_word(yard: Yard, trainer: Trainer) -> None:
    path, candidate = start_canary(yard, trainer, strategy="blue_green", promotion="manual")
    assert candidate not in served(yard, 20)
    assert set(served(yard, 5, headers={"X-Switchyard-Slot": "candidate"})) == {candidate}
    yard.post(f"{path}/promote", status=202)
    assert wait_for_end(yard, path.rpartition("/")[2])["phase"] == "succeeded"
    assert set(served(yard, 5)) == {candidate}


def test_a_rollback_during_a_canary_sends_everybody_back(yard: Yard, trainer: Trainer) -> None:
    with light_traffic(yard) as seen:
        path, candidate = start_canary(yard, trainer, steps=[50, 100], hold=600)
        yard.post("/admin/rollback")
        assert candidate not in served(yard, 20)
        assert wait_for_end(yard, path.rpartition("/")[2])["phase"] == "rolled_back"
    assert seen.failures == []
