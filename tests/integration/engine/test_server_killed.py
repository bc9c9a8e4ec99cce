"""`kill -9` of the server that users get, under load: what was inside it is lost, and nothing else."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.engine.aftermath import check_serves, wait_until_at_rest
from tests.integration.engine.clients import Clients, run_clients
from tests.integration.engine.killing import kill_server
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import child_pid
from tests.services.yard import Yard


def test_with_a_warm_server_only_the_requests_inside_the_killed_one_fail(stage: Stage) -> None:
    with run_clients(stage.yard) as clients:
        kill_server(stage.yard, stage.server_id)
        wait_for_answers_of(clients, stage, stage.warm_id)
    check_losses(clients)
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id
    assert stage.launches() == 0


def test_without_a_warm_server_only_the_requests_inside_the_killed_one_fail(stage: Stage) -> None:
    kill_server(stage.yard, stage.warm_id)
    wait_until_at_rest(stage.yard)
    with run_clients(stage.yard) as clients:
        kill_server(stage.yard, stage.server_id)
        stage.yard.wait_for(lambda: active_id(stage) != stage.server_id, "a replacement")
        wait_for_answers_of(clients, stage, active_id(stage))
    check_losses(clients)
    assert check_serves(stage.yard, stage.model, stage.served) not in {stage.server_id, stage.warm_id}
    assert stage.launches() == 1


def test_requests_that_find_nobody_wait_for_the_replacement(stage: Stage) -> None:
    yard = stage.yard
    kill_server(yard, stage.warm_id)
    wait_until_at_rest(yard)
    dying = child_pid(yard, stage.server_id)
    kill_server(yard, stage.server_id)
    wait_for_the_end_of(dying, yard)
    answers = ask_at_once(yard, 20)
    assert [answer.status_code for answer in answers] == [200] * 20
    replacement = check_serves(yard, stage.model, stage.served)
    assert {answer.json()["server"] for answer in answers} == {replacement}


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "again"}], ids=["plain", "repeatable"])
def test_a_request_that_kills_its_server_is_delivered_once_and_costs_nobody_else_an_answer(
    stage: Stage, headers: dict[str, str], tmp_path: Path
) -> None:
    """With a warm server beside it, which the same request would kill too."""
    deliveries = tmp_path / "deliveries"
    dying = child_pid(stage.yard, stage.server_id)
    answer = stage.yard.predict({"poison": str(deliveries)}, headers=headers)
    wait_for_the_end_of(dying, stage.yard)
    others = ask_at_once(stage.yard, 20)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "server_lost"
    assert [answer.status_code for answer in others] == [200] * 20
    assert {answer.json()["server"] for answer in others} == {stage.warm_id}
    assert deliveries.read_text().split() == [stage.server_id]
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id


def test_under_load_too_a_request_that_kills_its_server_is_delivered_once(
    stage: Stage, tmp_path: Path
) -> None:
    deliveries = tmp_path / "deliveries"
    with run_clients(stage.yard) as clients:
        assert stage.yard.predict({"poison": str(deliveries)}).status_code == 502
        wait_for_answers_of(clients, stage, stage.warm_id)
    check_losses(clients)
    assert deliveries.read_text().split() == [stage.server_id]


def wait_for_the_end_of(pid: int, yard: Yard) -> None:
    """The kernel closes a dying process's connections one by one, its listener last: what still gets in is
    inside. All of it is closed once the process has been reaped."""
    yard.wait_for(lambda: not psutil.pid_exists(pid), "its end")


def ask_at_once(yard: Yard, count: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: yard.predict(), range(count)))


def active_id(stage: Stage) -> str:
    return str(stage.yard.traffic()["active"]["server_id"])


def wait_for_answers_of(clients: Clients, stage: Stage, server_id: str) -> None:
    clients.wait_until(stage.yard, lambda client: server_id in client.served_by, f"answers of {server_id}")


def check_losses(clients: Clients) -> None:
    """What was inside is lost, and nothing else: of each client the request that it had there, and the next
    one if that still met the listener of the dying process, which the kernel closes last."""
    assert any(client.failures for client in clients.slow), clients.slow
    failures = [failure for client in clients.all for failure in client.failures]
    assert all(len(client.failures) <= 2 for client in clients.all), failures
