"""The promises to users, kept by the compose stack through its published ports."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.demo_run import ROWS, TRAINER
from tests.e2e.compose_stack import PLAIN, ComposeStack
from tests.services.clients import four_kinds_of_clients

pytestmark = pytest.mark.xdist_group("compose")  # one stack, so one worker

MODEL = "DiabetesRF"
RATE = 100
SLOW = 4  # requests that are always in flight
TOGGLES = 20
PAUSE_SECONDS = 0.1  # between switches, so that many requests fall between two and many across each
OFFER = (f"--body={json.dumps(ROWS)}", "--slow-upload", f"--slow={SLOW}")


def put_two_in_service(stack: ComposeStack) -> None:
    """Version 1 with the traffic and version 2 warm, or the other way round."""
    while stack.status()["model_version"] is None or len(stack.workloads()) < 2:
        stack.post(f"/admin/train_then_roll/{TRAINER}")


def served_by(stack: ComposeStack) -> str:
    return stack.predict().raise_for_status().headers["x-served-by"]


def test_train_then_roll_trains_in_a_container_and_serves_on_the_published_port(stack: ComposeStack) -> None:
    answer = stack.post(f"/admin/train_then_roll/{TRAINER}")
    assert answer["rolled"]
    assert len(stack.predict().raise_for_status().json()["predictions"]) == 1
    found = httpx.get(
        f"{stack.mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": answer["run_id"]}, **PLAIN
    )
    run = found.raise_for_status().json()["run"]
    assert run["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    image = f"{stack.project}/trainer-{TRAINER}:latest"
    assert tags["switchyard.image"] == image
    assert tags["switchyard.image_digest"] == stack.docker("image", "inspect", "--format", "{{.Id}}", image)


def test_no_request_is_lost_over_toggles_and_rollouts(stack: ComposeStack, tmp_path: Path) -> None:
    put_two_in_service(stack)
    with four_kinds_of_clients(stack.public_url, tmp_path / "load.json", RATE, *OFFER) as load:
        for _ in range(TOGGLES):
            stack.post("/admin/rollback")
            time.sleep(PAUSE_SECONDS)
        for version in (1, 2):
            assert stack.roll(MODEL, version)["version"] == version
            time.sleep(PAUSE_SECONDS)
    check_lossless(load.report)
    assert len(load.report["served_by"]) >= 3


@pytest.mark.parametrize("service", ["router", "mlflow", "socket-proxy"])
def test_no_prediction_fails_while_a_service_restarts(
    stack: ComposeStack, service: str, tmp_path: Path
) -> None:
    put_two_in_service(stack)
    active = stack.status()["active"]
    with four_kinds_of_clients(stack.public_url, tmp_path / "load.json", RATE, *OFFER) as load:
        stack.compose("restart", service)
        stack.wait_for(stack.is_ready, f"readiness after {service} restarted")
    check_lossless(load.report)
    assert stack.status()["active"] == active


@pytest.mark.parametrize(("outage", "end"), [("stop", "start"), ("pause", "unpause")])
def test_without_the_socket_proxy_what_needs_it_is_503_and_what_serves_goes_on(
    stack: ComposeStack, outage: str, end: str
) -> None:
    put_two_in_service(stack)
    server, before = served_by(stack), stack.history()
    stack.compose(outage, "socket-proxy")
    try:
        for path, body in (
            (f"/admin/train/{TRAINER}", {}),
            (f"/admin/train_then_roll/{TRAINER}", {}),
            ("/admin/roll", {"name": MODEL, "ref": 1}),
            ("/admin/rollback", {}),
        ):
            answer = stack.call("POST", path, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "runtime_unavailable")
            assert "socket-proxy" in answer.json()["error"]["message"]
        assert "socket-proxy" in stack.call("GET", "/readyz").json()["runtime"]
        assert served_by(stack) == server
    finally:
        stack.compose(end, "socket-proxy")
    stack.wait_for(stack.is_ready, "readiness")
    assert (served_by(stack), stack.history()) == (server, before)
    stack.post("/admin/rollback")


def test_a_restarted_caddy_serves_the_right_model_at_once(stack: ComposeStack, tmp_path: Path) -> None:
    put_two_in_service(stack)
    server = served_by(stack)
    stack.compose("restart", "caddy")
    stack.wait_for(lambda: stack.predict().status_code > 0, "an answer of Caddy's")
    with four_kinds_of_clients(stack.public_url, tmp_path / "load.json", RATE, *OFFER) as load:
        assert served_by(stack) == server
        stack.wait_for(stack.is_ready, "readiness")
    check_lossless(load.report)
    assert set(load.report["served_by"]) == {server}


def check_lossless(report: dict[str, Any]) -> None:
    assert report["failed"] == 0, report["reasons"]
    assert report["requests"] > SLOW
