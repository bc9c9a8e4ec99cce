"""Two routers over one slot directory: one works, the other stands by and takes over."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.integration.engine.aftermath import check_serves, read_homes
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import add_trainer
from tests.services.ports import find_free_port
from tests.services.standby import stands_by
from tests.services.yard import PLAIN, Yard


@pytest.fixture
def standby_url(yard: Yard) -> Iterator[str]:
    """Of a second router, which the test may leave in the lead."""
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    second = yard.make_router(ROUTER_PORT=str(port))
    second.start(lambda: stands_by(url))
    try:
        yield url
    finally:
        second.stop()
        if yard.router.running:
            yard.wait_for(lambda: yard.call("GET", "/status").status_code == 200, "the first's lead")
        else:
            yard.start_router()


def test_a_second_router_stands_by_and_says_so(stage: Stage, standby_url: str) -> None:
    assert httpx.get(f"{standby_url}/healthz", **PLAIN).status_code == 200
    calls = [("GET", "/status"), ("GET", "/admin/rollouts"), ("POST", "/admin/rollback")]
    for method, path in calls:
        answer = httpx.request(method, f"{standby_url}{path}", **PLAIN)
        assert answer.status_code == 503, path
        assert answer.json()["error"]["code"] == "standing_by"
        assert "another router has the lock on the slot directory" in answer.json()["error"]["message"]
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id


def test_a_second_router_goes_on_where_the_first_was_killed(stage: Stage, standby_url: str) -> None:
    yard, before = stage.yard, read_homes(stage.yard)
    trainer = add_trainer(yard, "slow-start")
    asked = yard.post(f"/admin/train_then_roll/{trainer.name}", {"wait_seconds": 0}, status=202)
    yard.router.kill()
    yard.wait_for(
        lambda: httpx.get(f"{standby_url}/status", **PLAIN).json().get("model_name") == trainer.model,
        "the rollout of what was trained",
    )
    training = httpx.get(f"{standby_url}{asked['location']}", **PLAIN).json()
    assert training["phase"] == "succeeded"
    assert stage.launches() == 1
    assert read_homes(yard)[stage.server_id] == before[stage.server_id]


def test_a_killed_router_that_comes_back_stands_by(stage: Stage, standby_url: str) -> None:
    yard = stage.yard
    yard.router.kill()
    yard.wait_for(lambda: httpx.get(f"{standby_url}/status", **PLAIN).status_code == 200, "the second's lead")
    yard.router.start(lambda: stands_by(yard.router_url))
    assert yard.call("GET", "/status").status_code == 503


def test_a_router_with_slots_of_its_own_stands_by_too_if_the_store_is_the_same(
    stage: Stage, tmp_path: Path
) -> None:
    yard, port = stage.yard, find_free_port()
    own = {"ROUTER_PORT": str(port), "STATE_PATH": str(tmp_path), "PROXY_ADMIN_URL": f"{yard.admin_socket}2"}
    store = f"sqlite:///{yard.state / 'switchyard.db'}"
    slots = {"SLOTS_PATH": str(tmp_path / "slots"), "CADDY_CONFIG_PATH": str(tmp_path / "caddy.json")}
    other = yard.make_router(**own, **slots, STORE_URL=store)
    other.start(lambda: stands_by(f"http://127.0.0.1:{port}"))
    try:
        assert (
            "another router leads with this store"
            in httpx.get(f"http://127.0.0.1:{port}/readyz", **PLAIN).text
        )
        assert check_serves(yard, stage.model, stage.served) == stage.server_id
    finally:
        other.stop()
