"""A candidate that is no good costs its own rollout and nothing else."""

from dataclasses import dataclass

import pytest

from tests.integration.spine.stage import (
    Trainer,
    add_trainer,
    child_pid,
    is_alive,
    light_traffic,
    owners,
    switches,
    wait_for_end,
)
from tests.services.yard import Yard

READY_LINE = "tiny server ready"
NEVER_READY_SECONDS = 8  # all of it is waited for; a busy machine may take some only to start them


@dataclass(frozen=True)
class Active:
    """The server that users have before a bad candidate comes, and after."""

    trainer: Trainer
    server_id: str
    address: str
    pid: int


@pytest.fixture(scope="module")
def active(yard: Yard) -> Active:
    trainer = add_trainer(yard)
    yard.post(f"/admin/train_then_roll/{trainer.name}")
    upstream = yard.traffic()["active"]
    server_id = upstream["server_id"]
    return Active(trainer, server_id, upstream["address"], child_pid(yard, server_id))


@pytest.mark.parametrize(
    ("source", "said", "printed"),
    [
        ("never-ready", "/ping answered 503", READY_LINE),
        ("flaps", "/ping answered 503", READY_LINE),
        ("ping-only", "/invocations answered 500", READY_LINE),
        ("nan", "not finite", READY_LINE),
        ("dies-at-once", "exit", "no such model"),
        ("dies-after-probe", "exit", "dies now"),
        ("dies-before-switch", "exit", "dies now"),
    ],
)
def test_a_bad_candidate_gets_no_traffic_and_leaves_the_active_server_alone(
    yard: Yard, active: Active, source: str, said: str, printed: str
) -> None:
    before = switches(yard)
    request = {
        "name": active.trainer.model,
        "ref": 1,
        "serve_image": f"tests/sources/{source}",
        "wait_ready_seconds": NEVER_READY_SECONDS if source in {"never-ready", "flaps", "ping-only"} else 60,
    }
    with light_traffic(yard) as seen:
        answer = yard.post("/admin/roll", request, status=503)

    error, detail = answer["error"], answer["detail"]
    assert error["code"] == "candidate_unhealthy"
    assert said in error["message"]
    assert "the active server was left as it was" in error["message"]
    assert printed in detail["logs_tail"]

    assert seen.failures == []
    assert set(seen.served_by) == {active.address}
    assert switches(yard) == before
    assert child_pid(yard, active.server_id) == active.pid
    assert is_alive(active.pid)
    assert yard.predict().json()["server"] == active.server_id
    status = yard.get("/status")
    assert (status["server_id"], status["healthy"]) == (active.server_id, True)
    assert yard.alias(active.trainer.model) == 1

    rollout = wait_for_end(yard, detail["id"])
    assert rollout["phase"] == "failed"
    assert rollout["failure"]["message"] == error["message"]
    assert printed in rollout["logs_tail"]
    yard.wait_for(lambda: owners(yard, "srv_") == {active.server_id}, "the active server alone")
