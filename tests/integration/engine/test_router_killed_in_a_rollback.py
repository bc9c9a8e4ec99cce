"""`kill -9` of the router in every phase of a rollback, and where a rollback pushes a rollout aside."""

import pytest

from tests.integration.engine.aftermath import check_serves, wait_until_at_rest
from tests.integration.engine.killing import Call, kill_router_at, kill_server
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import switches
from tests.services.yard import Yard

WHEN = ["before", "after"]


def roll_back() -> Call:
    return Call("/admin/rollback")


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("phase", ["shifting", "promoting", "baking", "succeeded"])
def test_a_rollback_goes_on_to_the_warm_server(stage: Stage, phase: str, when: str) -> None:
    call = roll_back()
    kill_router_at(stage.yard, f"rollout:{phase}:{when}", call.send)
    check_rolled_back(stage, call)


def test_a_switch_back_that_nobody_wrote_down_is_found_and_written_down(stage: Stage) -> None:
    call = roll_back()
    kill_router_at(stage.yard, "traffic", call.send)
    assert stage.yard.traffic()["active"]["server_id"] == stage.warm_id
    check_rolled_back(stage, call)


def test_a_rollback_that_was_recorded_is_carried_out_though_nobody_heard_so(stage: Stage) -> None:
    call = roll_back()
    kill_router_at(stage.yard, "rollout:pending:after", call.send)
    check_rolled_back(stage, call)


def test_a_rollback_that_was_not_recorded_is_not_begun_and_can_be_asked_for_again(stage: Stage) -> None:
    call, before = roll_back(), switches(stage.yard)
    kill_router_at(stage.yard, "rollout:pending:before", call.send)
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
    assert switches(stage.yard) == before
    assert call.send(stage.yard).status_code == 200
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id


def check_rolled_back(stage: Stage, call: Call) -> None:
    """To the very server that was warm; the one that users had is warm now."""
    yard = stage.yard
    assert yard.predict().json()["server"] == yard.traffic()["active"]["server_id"]
    yard.start_router()
    assert check_serves(yard, stage.model, stage.other) == stage.warm_id
    answer = call.send(yard)
    assert answer.status_code == 200
    rollback = yard.get(f"/admin/rollouts/{answer.json()['id']}")
    assert (rollback["phase"], rollback["kind"]) == ("succeeded", "rollback")
    assert rollback["previous_server_id"] == stage.server_id
    assert stage.launches() == 0


@pytest.mark.parametrize("phase", ["launching", "probing", "promoting"])
def test_a_rollback_without_a_warm_server_goes_on_to_a_new_one(stage: Stage, phase: str) -> None:
    yard, call = stage.yard, roll_back()
    kill_server(yard, stage.warm_id)
    wait_until_at_rest(yard)
    kill_router_at(yard, f"rollout:{phase}:after", call.send)
    yard.start_router()
    assert check_serves(yard, stage.model, stage.other) not in {stage.warm_id, stage.server_id}
    assert stage.launches() == 1


# --- a rollback that pushes a rollout aside ------------------------------------------------------------


@pytest.mark.parametrize(
    "point", ["rollout:pending:after", "rollout:aborting:after", "rollout:rolled_back:after"]
)
def test_a_rollback_ends_a_rollout_before_its_switch(stage: Stage, point: str) -> None:
    yard, before = stage.yard, switches(stage.yard)
    asked = stage.roll(serve_image="tests/sources/never-ready", wait_seconds=0).send(yard).json()
    yard.wait_for(lambda: yard.get(asked["location"])["phase"] == "probing", "the probe")
    call = roll_back()
    kill_router_at(yard, point, call.send)
    yard.start_router()
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
    assert switches(yard) == before
    assert yard.get(asked["location"])["phase"] == "rolled_back"
    assert call.send(yard).status_code == 200


@pytest.mark.parametrize("point", ["rollout:pending:after", "traffic"])
def test_a_rollback_takes_back_what_a_killed_router_has_just_switched(stage: Stage, point: str) -> None:
    yard = stage.yard
    kill_router_at(yard, "traffic", stage.roll().send)
    kill_router_at(yard, point, Yard.start_router, roll_back().send)
    yard.start_router()
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
