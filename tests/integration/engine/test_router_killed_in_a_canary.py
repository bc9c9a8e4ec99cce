"""`kill -9` of the router while users are shared out, and on the way back from a breach."""

from pathlib import Path
from typing import Any

import pytest

from router.core.models import Server, ServerPhase
from tests.integration.engine.aftermath import check_serves, read_records
from tests.integration.engine.killing import Call, kill_router_at
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import ENDS
from tests.services.clients import four_kinds_of_clients

UNWATCHED = {"analysis": {"enabled": False}}
CANARY = {"strategy": "canary", "steps": [10, 50], "hold": 0.5, "bake": 0.5, **UNWATCHED}
LONG = {**CANARY, "hold": 600}
WATCHED = {"strategy": "canary", "steps": [30], "hold": 600}
RATE = 150


def start(stage: Stage, plan: dict[str, Any], **fields: object) -> Call:
    return stage.roll(rollout=plan, wait_seconds=0, **fields)


def start_shared(stage: Stage, plan: dict[str, Any], **fields: object) -> str:
    """The path of a rollout whose candidate has its first share."""
    path: str = start(stage, plan, **fields).send(stage.yard).json()["location"]
    stage.yard.wait_for(lambda: stage.yard.traffic()["candidate"] is not None, "a share")
    return path


def wait_for_end(stage: Stage, path: str) -> dict[str, Any]:
    stage.yard.wait_for(lambda: stage.yard.get(path)["phase"] in ENDS, f"the end of {path}")
    return stage.yard.get(path)


@pytest.mark.parametrize("point", ["at-10:after", "at-50:before", "baking:after"])
def test_a_canary_goes_on_from_the_step_that_was_recorded(stage: Stage, point: str) -> None:
    call = start(stage, CANARY)
    kill_router_at(stage.yard, f"rollout:{point}", call.send)
    check_canary_ends(stage, call)


def test_a_share_that_was_set_is_kept_by_the_next_router(stage: Stage) -> None:
    call = start(stage, CANARY)
    kill_router_at(stage.yard, "traffic", call.send)
    traffic = stage.yard.traffic()
    assert (traffic["active"]["server_id"], traffic["weight"]) == (stage.server_id, 10)
    check_canary_ends(stage, call)


def check_canary_ends(stage: Stage, call: Call) -> None:
    assert stage.yard.predict().status_code == 200
    stage.yard.start_router()
    rollout = wait_for_end(stage, f"/admin/rollouts/{call.send(stage.yard).json()['id']}")
    assert rollout["phase"] == "succeeded"
    assert [step["weight"] for step in rollout["steps"]] == [10, 50, 100]
    assert check_serves(stage.yard, stage.model, stage.other) == rollout["server_id"]
    assert stage.launches() == 1


@pytest.mark.parametrize(("call", "flag"), [("pause", "paused"), ("promote", "promote_requested")])
def test_what_a_person_has_said_of_a_canary_holds(stage: Stage, call: str, flag: str) -> None:
    yard, path = stage.yard, start_shared(stage, LONG)
    kill_router_at(yard, f"rollout:{flag}:after", Call(f"{path}/{call}").send)
    traffic = yard.traffic()
    assert (traffic["active"]["server_id"], traffic["weight"]) == (stage.server_id, 10)
    yard.start_router()
    if call == "pause":
        assert yard.get(path)["paused"] == "paused by 127.0.0.1"
        yard.post(f"{path}/promote", status=202)
    assert wait_for_end(stage, path)["phase"] == "succeeded"
    check_serves(yard, stage.model, stage.other)


@pytest.mark.parametrize("point", ["rollout:aborting:after", "traffic"])
def test_a_canary_in_breach_is_taken_back_by_the_next_router(
    stage: Stage, point: str, tmp_path: Path
) -> None:
    yard = stage.yard
    path = start_shared(stage, WATCHED, serve_image="tests/sources/fails-now-and-then")
    with four_kinds_of_clients(yard.public_url, tmp_path / "load.json", RATE):
        kill_router_at(yard, point)
        yard.start_router()
        assert wait_for_end(stage, path)["phase"] == "rolled_back"
    rollout = yard.get(path)
    assert rollout["failure"]["code"] == "analysis_failed"
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
    phases = {server.id: server.phase for server in read_records(yard, Server)}
    assert phases[rollout["server_id"]] is ServerPhase.STOPPED
