"""The life of a reference server: what it needs to start, how it waits, how it ends."""

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.modelkit.bodies import COLUMNS, SPLIT
from tests.integration.modelkit.conftest import Serve, Train
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking, TrainedVersion
from tests.services.processes import POLL_SECONDS

REQUEST = json.dumps({"dataframe_split": SPLIT}).encode()
DEADLINE = 60  # seconds
# A busy machine may stop a client between two of its steps for longer than a server in use waits for it.
LEAVE_SLOWLY = """
from modelkit.serve import __main__, leaving

leaving._SECONDS, leaving._SECONDS_TO_DRAIN = 3, 2
__main__.main()
"""

# Its prediction says that it has begun and then waits to be released, both through files of its folder.
PATIENT = """
import time
from pathlib import Path

from modelkit.train import Dataset, TrainingSettings, run_training
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_diabetes

FOLDER = Path({folder!r})


class Patient(RegressorMixin, BaseEstimator):
    def fit(self, features, target):
        self.is_fitted_ = True
        return self

    def predict(self, features):
        if (FOLDER / "failing").exists():
            raise RuntimeError("a fault of its own")
        (FOLDER / "begun").touch()
        while not (FOLDER / "released").exists():
            time.sleep(0.01)
        return [1.5] * len(features)


if __name__ == "__main__":
    run_training(
        settings=TrainingSettings,
        build=lambda settings: Patient(),
        built_in=lambda: Dataset("diabetes", load_diabetes(as_frame=True).frame),
        experiment="patience",
        model_name="Patient",
    )
"""


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(POLL_SECONDS)


@pytest.fixture
def patient(train: Train, serve: Serve, tracking: Tracking, tmp_path: Path) -> Iterator[ModelServer]:
    with serve(train_patient(train, tracking, tmp_path)) as server:
        yield server
        (tmp_path / "released").touch()


def train_patient(train: Train, tracking: Tracking, tmp_path: Path) -> str:
    """Its URI."""
    (tmp_path / "train.py").write_text(PATIENT.format(folder=str(tmp_path)))
    (tmp_path / "released").touch()
    run_id = tracking.create_run("patience")
    process = train(source=tmp_path, MLFLOW_RUN_ID=run_id)
    assert process.returncode == 0, process.stderr
    (tmp_path / "begun").unlink()
    (tmp_path / "released").unlink()
    return tracking.version_of_run(run_id).uri


def test_sigterm_ends_a_server_after_its_last_answer(patient: ModelServer, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(patient.invoke, REQUEST)
        wait_until(lambda: (tmp_path / "begun").exists())
        patient.terminate()
        wait_until(lambda: not patient.listening)
        assert patient.running
        assert not slow.done()
        (tmp_path / "released").touch()
        assert slow.result(DEADLINE).json() == {"predictions": [1.5, 1.5]}
    assert patient.wait(DEADLINE) == 0


def test_a_server_answers_health_checks_while_predictions_take_their_time(
    patient: ModelServer, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(patient.invoke, REQUEST)
        wait_until(lambda: (tmp_path / "begun").exists())
        assert httpx.get(f"{patient.url}/ping", timeout=DEADLINE).status_code == 200
        (tmp_path / "released").touch()
        assert slow.result(DEADLINE).status_code == 200


def test_a_model_that_raises_is_told_as_mlflow_tells_it_and_the_next_request_is_answered(
    patient: ModelServer, tmp_path: Path
) -> None:
    (tmp_path / "released").touch()
    (tmp_path / "failing").touch()
    answer = patient.invoke(REQUEST)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    assert "a fault of its own" in answer.json()["stack_trace"]
    (tmp_path / "failing").unlink()
    assert patient.invoke(REQUEST).status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_ends_though_a_prediction_hangs(
    train: Train, serve: Serve, tracking: Tracking, tmp_path: Path, workers: str
) -> None:
    limits = {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "0.5", "SERVE_THREADS": "1"}
    with serve(train_patient(train, tracking, tmp_path), SERVE_WORKERS=workers, **limits) as server:
        assert server.invoke(REQUEST).status_code == 504
        assert server.client.get("/ping").status_code == 503  # on the same connection: the same worker
        server.terminate()
        assert server.wait(DEADLINE) == 0


def test_slow_clients_hold_nobody_up_and_are_told_that_they_were_too_slow(
    serve: Serve, trained: TrainedVersion
) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
    with ExitStack() as stack:
        server = stack.enter_context(
            serve(trained.uri, SERVE_THREADS="1", MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT="2")
        )
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE))
            for _ in range(100)
        ]
        for number, connection in enumerate(slow):
            begun = b"{" if number % 2 else b""
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(REQUEST) + begun)
        assert server.invoke(REQUEST).status_code == 200
        for connection in slow:
            assert connection.makefile("rb").readline().split()[1] == b"408"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_told_to_end_under_load_loses_no_request(
    serve: Serve, trained: TrainedVersion, workers: str
) -> None:
    """On connections that it kept open: a client learns from an answer that it has to leave."""
    with (
        serve(trained.uri, program=("-c", LEAVE_SLOWLY), SERVE_WORKERS=workers) as server,
        ThreadPoolExecutor() as pool,
    ):

        def ask_until_told_to_leave() -> int:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
            for count in itertools.count(1):
                connection.request("POST", "/invocations", REQUEST, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read()
                if answer.getheader("Connection") == "close":
                    return count
                asked.release()
            raise AssertionError("counts have no end")

        asked = threading.Semaphore(0)
        clients = [pool.submit(ask_until_told_to_leave) for _ in range(8)]
        for _ in range(200):
            assert asked.acquire(timeout=DEADLINE)
        server.terminate()
        assert sum(client.result(DEADLINE) for client in clients) > 200
        assert server.wait(DEADLINE) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_told_to_end_answers_whoever_has_connected(
    serve: Serve, trained: TrainedVersion, workers: str
) -> None:
    """Each request on a connection of its own: a client learns that it has to leave by being refused one."""
    with (
        serve(trained.uri, program=("-c", LEAVE_SLOWLY), SERVE_WORKERS=workers) as server,
        ThreadPoolExecutor(32) as pool,
    ):

        def ask_until_refused() -> int:
            for count in itertools.count():
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return count
                connection.request("POST", "/invocations", REQUEST, {"Content-Type": "application/json"})
                assert connection.getresponse().status == 200
                connection.close()
                asked.release()
            raise AssertionError("counts have no end")

        asked = threading.Semaphore(0)
        clients = [pool.submit(ask_until_refused) for _ in range(32)]
        for _ in range(200):
            assert asked.acquire(timeout=DEADLINE)
        server.terminate()
        assert sum(client.result(DEADLINE) for client in clients) > 200
        assert server.wait(DEADLINE) == 0


def test_a_client_that_does_not_read_its_answer_holds_no_server(
    serve: Serve, trained: TrainedVersion
) -> None:
    row = b"[0,0,0,0,0,0,0,0,0,0]"
    body = b'{"dataframe_split":{"columns":%s,"data":[%s]}}' % (
        json.dumps(COLUMNS).encode(),
        b",".join([row] * 400_000),  # more of an answer than the buffers in between take
    )
    head = b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
    with serve(trained.uri, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT="10") as server, socket.socket() as client:
        client.settimeout(DEADLINE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        server.terminate()
        assert server.wait(DEADLINE) == 0


def test_an_idle_server_ends_at_once_with_0_and_leaves_no_files(
    serve: Serve, trained: TrainedVersion, tmp_path: Path
) -> None:
    with serve(trained.uri, TMPDIR=str(tmp_path)) as server:
        assert list(tmp_path.iterdir()) != []
        server.terminate()
        assert server.wait(DEADLINE) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_server_keeps_an_idle_connection_for_longer_than_5_seconds(server: ModelServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: model\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        answer.read()  # to its end: headers and body may come one after the other
        connection.settimeout(5.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_server_says_what_it_serves(serve: Serve, trained: TrainedVersion) -> None:
    information = {"MODEL_NAME": "Shared", "MODEL_VERSION": "1", "MLFLOW_RUN_ID": "r1", "SERVER_ID": "s1"}
    with serve(trained.uri, **information) as server:
        assert f"serving {trained.uri} (Shared version 1, run r1, server s1)" in server.log


def test_a_server_reads_a_version_by_its_alias(
    serve: Serve, trained: TrainedVersion, tracking: Tracking
) -> None:
    tracking.set_alias(trained, "deployed")
    with serve(f"models:/{trained.name}@deployed") as server:
        assert server.invoke(REQUEST).status_code == 200


@pytest.mark.parametrize(
    ("model_uri", "variables", "reason"),
    [
        ("models:/Shared/999", {}, "models:/Shared/999 cannot be loaded: "),
        ("models:/Unknown/1", {}, "models:/Unknown/1 cannot be loaded: "),
        ("nowhere", {}, "nowhere cannot be loaded: "),
        ("", {}, "SERVE_MODEL_URI is not set"),
        ("models:/Shared/1", {"SERVE_PORT": "many"}, "SERVE_PORT='many': input should be a valid integer"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_line_and_exits_with_1(
    serve: Serve,
    trained: TrainedVersion,
    model_uri: str,
    variables: dict[str, str],
    reason: str,
) -> None:
    with serve(model_uri, await_answers=False, **variables) as server:
        assert server.wait(DEADLINE) == 1
        assert reason in server.log
        assert "Traceback" not in server.log


def test_a_port_that_is_taken_is_named(serve: Serve, server: ModelServer) -> None:
    with serve("models:/Shared/1", await_answers=False, SERVE_PORT=str(server.port)) as other:
        assert other.wait(DEADLINE) == 1
        assert f"SERVE_PORT={server.port}: Address already in use" in other.log
