"""`kill -9` of the router while it adds or removes an endpoint: the next one brings it to its end."""

import uuid

import pytest

from router.core.models import Endpoint, EndpointPhase, Server, ServerPhase
from tests.integration.engine.aftermath import check_serves, read_records, wait_until_at_rest
from tests.integration.engine.killing import kill_router_at
from tests.integration.engine.stage import Stage
from tests.services.yard import Yard

RECORDED = ["endpoint:open:after", "routes"]
IN_A_REMOVAL = [
    "endpoint:closing:after",
    "traffic",
    "server:draining:before",
    "server:draining:after",
    "server:stopped:before",
    "routes",
    "endpoint:closed:before",
]


@pytest.fixture
def name() -> str:
    return f"fraud-{uuid.uuid4().hex[:8]}"


def find_phase(yard: Yard, name: str) -> EndpointPhase | None:
    return next((found.phase for found in read_records(yard, Endpoint) if found.id == name), None)


def add(yard: Yard, *names: str) -> None:
    assert yard.call("POST", "/admin/endpoints", {"names": names}).status_code == 201


def check_gone(yard: Yard, name: str) -> None:
    yard.wait_for(lambda: find_phase(yard, name) is EndpointPhase.CLOSED, f"the end of {name}")
    wait_until_at_rest(yard)
    assert not (yard.state / "slots" / name).exists()
    servers = [server for server in read_records(yard, Server) if server.endpoint == name]
    assert {server.phase for server in servers} <= {ServerPhase.STOPPED}
    assert yard.predict(endpoint=name).json()["error"]["code"] == "unknown_endpoint"


@pytest.mark.parametrize("point", RECORDED)
def test_endpoints_whose_adding_was_recorded_are_added(stage: Stage, name: str, point: str) -> None:
    yard, names = stage.yard, (name, f"{name}-too")
    kill_router_at(yard, point, lambda yard: add(yard, *names))
    yard.start_router()
    yard.wait_for(
        lambda: {yard.predict(endpoint=each).status_code for each in names} == {503}, "both to be routed"
    )
    yard.post("/admin/roll", {"name": stage.model, "ref": stage.other, "endpoint": name})
    assert yard.predict(endpoint=name).json()["predictions"] == [stage.other]
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
    for each in names:
        yard.call("DELETE", f"/admin/endpoints/{each}")
        check_gone(yard, each)


def test_endpoints_whose_adding_was_not_recorded_are_not_there_and_can_be_added(
    stage: Stage, name: str
) -> None:
    yard = stage.yard
    kill_router_at(yard, "endpoint:open:before", lambda yard: add(yard, name))
    yard.start_router()
    assert yard.call("GET", f"/admin/endpoints/{name}").status_code == 404
    assert yard.predict(endpoint=name).status_code == 404
    add(yard, name)
    assert yard.predict(endpoint=name).status_code == 503
    yard.call("DELETE", f"/admin/endpoints/{name}")
    check_gone(yard, name)


@pytest.mark.parametrize("point", IN_A_REMOVAL)
def test_a_removal_that_was_recorded_goes_on_to_its_end(stage: Stage, name: str, point: str) -> None:
    yard = stage.yard
    add(yard, name)
    yard.post("/admin/roll", {"name": stage.model, "ref": stage.other, "endpoint": name})
    wait_until_at_rest(yard)
    kill_router_at(yard, point, lambda yard: yard.call("DELETE", f"/admin/endpoints/{name}"))
    assert yard.predict().json()["server"] == stage.server_id
    yard.start_router()
    check_gone(yard, name)
    assert yard.alias(stage.model, f"deployed-{name}") is None
    assert check_serves(yard, stage.model, stage.served) == stage.server_id


def test_a_removal_that_was_not_recorded_leaves_the_endpoint_as_it_is(stage: Stage, name: str) -> None:
    yard = stage.yard
    add(yard, name)
    yard.post("/admin/roll", {"name": stage.model, "ref": stage.other, "endpoint": name})
    wait_until_at_rest(yard)
    before = yard.predict(endpoint=name).json()["server"]
    kill_router_at(
        yard, "endpoint:closing:before", lambda yard: yard.call("DELETE", f"/admin/endpoints/{name}")
    )
    yard.start_router()
    assert yard.get(f"/admin/endpoints/{name}")["phase"] == "open"
    assert yard.predict(endpoint=name).json()["server"] == before
    yard.call("DELETE", f"/admin/endpoints/{name}")
    check_gone(yard, name)
