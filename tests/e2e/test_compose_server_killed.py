"""The server that users get is killed under load: what was inside it is lost, and nothing else."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from router.proxies.caddy_config import CaddyLayout
from tests.e2e.compose_stack import ComposeStack
from tests.e2e.test_compose import OFFER, RATE, put_two_in_service
from tests.services.clients import four_kinds_of_clients

pytestmark = pytest.mark.xdist_group("compose")

ACCESS_LOG = "/var/lib/switchyard/caddy/access.log"
PATIENCE_SECONDS = CaddyLayout.retry_seconds


@pytest.mark.parametrize("warm", [True, False], ids=["with-a-warm-server", "without"])
def test_only_the_requests_inside_a_killed_server_are_lost(
    stack: ComposeStack, warm: bool, tmp_path: Path
) -> None:
    put_two_in_service(stack)
    began, victim = time.time(), str(stack.status()["active"])
    if not warm:
        of_ours = ("--filter", f"label=switchyard.instance={stack.project}")
        [other] = {*stack.docker("ps", *of_ours, "--format", "{{.Names}}").split()} - {victim}
        stack.docker("kill", other)
        stack.wait_for(lambda: len(stack.workloads("--all")) == 1, "the end of the warm server")
    # Without one, requests pile up until the replacement is there: enough of them at a tenth of the rate.
    rate = RATE if warm else RATE / 10
    with four_kinds_of_clients(stack.public_url, tmp_path / "load.json", rate, *OFFER) as load:
        stack.docker("kill", victim)
        stack.wait_for(lambda: served_by_another(stack, victim), "answers of another server")
    lost = [line for line in read_access_log(stack, began) if line["status"] != 200]
    died = read_end(stack, victim, began)
    assert all(was_inside(line, victim, died) or has_waited(line) for line in lost), (lost, died)
    assert load.report["failed"] <= len(lost), load.report["reasons"]  # the test's own may be among the lost
    if warm:
        assert not any(has_waited(line) for line in lost)


def served_by_another(stack: ComposeStack, victim: str) -> bool:
    answer = stack.predict()
    return answer.status_code == 200 and not answer.headers["x-served-by"].startswith(victim)


def was_inside(line: dict[str, Any], victim: str, died: float) -> bool:
    """It was sent to the one that died, before its end: nothing that was sent is ever sent again."""
    return bool(line["upstream"].startswith(victim) and line["ts"] - line["duration"] <= died)


def has_waited(line: dict[str, Any]) -> bool:
    """Nobody listened for as long as Caddy tries."""
    return bool(line["duration"] >= PATIENCE_SECONDS)


def read_access_log(stack: ComposeStack, since: float) -> list[dict[str, Any]]:
    text = stack.docker("exec", stack.container("caddy"), "cat", ACCESS_LOG)
    return [line for line in map(json.loads, text.splitlines()) if line["ts"] >= since]


def read_end(stack: ComposeStack, name: str, since: float) -> float:
    """Epoch seconds at which Docker saw it end: the container itself is put away soon after."""
    told = stack.docker(
        *("events", "--since", f"{since:.0f}", "--until", f"{time.time():.0f}", "--format", "{{.TimeNano}}"),
        *("--filter", f"container={name}", "--filter", "event=die"),
    )
    return int(told.split()[0]) / 1e9
