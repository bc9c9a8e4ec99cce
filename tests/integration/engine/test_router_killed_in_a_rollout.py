"""`kill -9` of the router in every phase of a rollout: users get the right server at every moment."""

import pytest

from router.core.models import RolloutPhase
from tests.integration.engine.aftermath import check_serves, wait_until_at_rest
from tests.integration.engine.killing import Call, kill_router_at
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import switches

WHEN = ["before", "after"]
TO_THE_SWITCH = ["launching", "probing", "gating", "shifting", "promoting"]
AFTER_THE_SWITCH = ["baking", "succeeded"]
# What the supervisor does meanwhile to the server that had the slot, and to the one that had the traffic.
OF_OTHER_SERVERS = ["draining", "stopped", "retiring", "warm"]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("phase", TO_THE_SWITCH + AFTER_THE_SWITCH)
def test_a_rollout_goes_on_to_its_end(stage: Stage, phase: str, when: str) -> None:
    call = stage.roll()
    kill_router_at(stage.yard, f"rollout:{phase}:{when}", call.send)
    check_rolled_out(stage, call)


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("phase", OF_OTHER_SERVERS)
def test_a_rollout_goes_on_to_its_end_whatever_was_done_with_other_servers(
    stage: Stage, phase: str, when: str
) -> None:
    call = stage.roll()
    kill_router_at(stage.yard, f"server:{phase}:{when}", call.send)
    check_rolled_out(stage, call)


def test_a_switch_that_nobody_wrote_down_is_found_and_written_down(stage: Stage) -> None:
    call = stage.roll()
    kill_router_at(stage.yard, "traffic", call.send)
    assert stage.yard.traffic()["active"]["model_version"] == stage.other
    check_rolled_out(stage, call)


def test_a_rollout_that_was_recorded_is_carried_out_though_nobody_heard_so(stage: Stage) -> None:
    call = stage.roll()
    kill_router_at(stage.yard, "rollout:pending:after", call.send)
    check_rolled_out(stage, call)


def test_a_rollout_that_was_not_recorded_is_not_begun_and_can_be_asked_for_again(stage: Stage) -> None:
    call, before = stage.roll(), switches(stage.yard)
    kill_router_at(stage.yard, "rollout:pending:before", call.send)
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
    assert switches(stage.yard) == before
    assert call.send(stage.yard).status_code == 200
    check_serves(stage.yard, stage.model, stage.other)


def check_rolled_out(stage: Stage, call: Call) -> None:
    yard = stage.yard
    while_nobody_routes = yard.predict().json()
    assert while_nobody_routes["server"] == yard.traffic()["active"]["server_id"]
    yard.start_router()
    server_id = check_serves(yard, stage.model, stage.other)
    answer = call.send(yard)
    assert answer.status_code == 200
    rollout = yard.get(f"/admin/rollouts/{answer.json()['id']}")
    assert (rollout["phase"], rollout["server_id"]) == ("succeeded", server_id)
    assert rollout["previous_server_id"] == stage.server_id
    assert stage.launches() == 1


# --- rollouts that end badly ---------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["aborting:before", "aborting:after", "failed:before", "failed:after"])
def test_a_candidate_that_is_no_good_never_gets_traffic(stage: Stage, point: str) -> None:
    call, before = stage.roll(serve_image="tests/sources/nan"), switches(stage.yard)
    kill_router_at(stage.yard, f"rollout:{point}", call.send)
    check_left_alone(stage, before)
    answer = call.send(stage.yard)
    assert answer.status_code == 503
    assert "not finite" in answer.json()["error"]["message"]
    assert "tiny server ready" in answer.json()["detail"]["logs_tail"]


@pytest.mark.parametrize("point", ["aborting:before", "aborting:after", "rolled_back:before"])
def test_a_rollout_that_was_aborted_stays_aborted(stage: Stage, point: str) -> None:
    yard, before = stage.yard, switches(stage.yard)
    asked = stage.roll(serve_image="tests/sources/never-ready", wait_seconds=0).send(yard).json()
    yard.wait_for(lambda: yard.get(asked["location"])["phase"] == "probing", "the probe")
    kill_router_at(yard, f"rollout:{point}", Call(f"{asked['location']}/abort").send)
    check_left_alone(stage, before)
    assert yard.get(asked["location"])["phase"] == RolloutPhase.ROLLED_BACK


def check_left_alone(stage: Stage, before: str) -> None:
    stage.yard.start_router()
    wait_until_at_rest(stage.yard)
    assert switches(stage.yard) == before
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
