"""A server of several processes: one port, one /metrics, and none of them left behind."""

from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.integration.modelkit.conftest import Serve
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.test_serving import DEADLINE, REQUEST, wait_until
from tests.integration.modelkit.tracking import TrainedVersion


@pytest.fixture
def crowd(serve: Serve, trained: TrainedVersion) -> Iterator[ModelServer]:
    with serve(trained.uri, SERVE_WORKERS="2") as server:
        wait_until(lambda: count_started(server) == 2)
        yield server


def count_started(server: ModelServer) -> int:
    return server.log.count("Started server process")


def list_workers(server: ModelServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def ask_alone(server: ModelServer) -> None:
    """On a connection of its own, so whichever worker takes it."""
    answer = httpx.post(
        f"{server.url}/invocations",
        content=REQUEST,
        headers={"content-type": "application/json"},
        timeout=DEADLINE,
    )
    assert answer.status_code == 200


def test_each_worker_tells_what_all_of_them_have_answered(crowd: ModelServer) -> None:
    for _ in range(20):
        ask_alone(crowd)
    for _ in range(10):
        told = httpx.get(f"{crowd.url}/metrics", timeout=DEADLINE).text
        assert 'modelkit_requests_total{lane="compiled",status="200"} 20' in told
        assert "modelkit_batch_rows_sum 40" in told
        assert "modelkit_batch_rows_count 20" in told


def test_a_worker_that_dies_is_started_again_and_the_counts_go_on(crowd: ModelServer) -> None:
    ask_alone(crowd)
    killed, other = list_workers(crowd)
    killed.kill()
    wait_until(lambda: count_started(crowd) == 3)
    assert other.is_running()
    assert len(list_workers(crowd)) == 2
    ask_alone(crowd)
    told = httpx.get(f"{crowd.url}/metrics", timeout=DEADLINE).text
    assert 'modelkit_requests_total{lane="compiled",status="200"} 2' in told
    crowd.terminate()
    assert crowd.wait(DEADLINE) == 0


def test_workers_leave_when_their_parent_is_killed(crowd: ModelServer) -> None:
    workers = list_workers(crowd)
    psutil.Process(crowd.pid).kill()
    _, alive = psutil.wait_procs(workers, DEADLINE)
    assert alive == []
    assert not crowd.listening


def test_a_server_whose_first_worker_cannot_start_ends_with_1(serve: Serve, trained: TrainedVersion) -> None:
    with serve(f"models:/{trained.name}/999", await_answers=False, SERVE_WORKERS="2") as server:
        assert server.wait(DEADLINE) == 1
        assert server.log.count("cannot be loaded") == 1


def test_an_alias_may_move_so_several_workers_refuse_it(serve: Serve) -> None:
    with serve("models:/Shared@deployed", await_answers=False, SERVE_WORKERS="2") as server:
        assert server.wait(DEADLINE) == 1
        assert (
            "models:/Shared@deployed names an alias, which may move: several workers need a version"
            in server.log
        )
