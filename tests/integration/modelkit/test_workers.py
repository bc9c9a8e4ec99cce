"""A server of several processes: one port, one /metrics, and none of them left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scripts.service_commands import ROOT
from tests.integration.modelkit.conftest import Serve
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.test_serving import DEADLINE, REQUEST, wait_until
from tests.integration.modelkit.tracking import TrainedVersion

# The second worker does not come back at once: its second and third start fail. `PLACE-COUNT` holds its pid.
TROUBLED = """
import os, signal, sys
from pathlib import Path
from modelkit.serve.workers import Workers

folder = Path(sys.argv[1])

def work(place, tell_ready):
    count = len(list(folder.glob(f"{place}-[0-9]")))
    (folder / f"{place}-{count}").write_text(str(os.getpid()))
    if (place, count) in {(1, 1), (1, 2)}:
        sys.exit(1)
    tell_ready()
    (folder / (f"{place}-serves-again" if count else f"{place}-serves")).touch()
    signal.pause()

sys.exit(0 if Workers(work, lambda: None).run(2) else 1)
"""


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


def test_a_worker_that_is_told_to_end_alone_leaves_the_door_open_for_its_heir(crowd: ModelServer) -> None:
    ask_alone(crowd)
    told, _ = list_workers(crowd)
    told.terminate()
    wait_until(lambda: count_started(crowd) == 3)
    ask_alone(crowd)


def test_a_worker_that_cannot_come_back_for_a_while_leaves_the_others_at_work(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TROUBLED, str(tmp_path)]
    modelkit = {"PYTHONPATH": str(ROOT / "model-images" / "modelkit")}
    with subprocess.Popen(command, env=modelkit, stderr=subprocess.DEVNULL) as parent:
        wait_until((tmp_path / "1-serves").exists)
        os.kill(int((tmp_path / "1-0").read_text()), signal.SIGKILL)
        wait_until((tmp_path / "1-serves-again").exists)
        assert not (tmp_path / "0-1").exists()
        assert psutil.pid_exists(int((tmp_path / "0-0").read_text()))
        parent.terminate()
        assert parent.wait(DEADLINE) == 0


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
