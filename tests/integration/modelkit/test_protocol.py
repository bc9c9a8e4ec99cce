"""/invocations of the reference server, beside `mlflow models serve` with the same model."""

import json
from collections.abc import Iterator

import httpx
import pytest

from scripts.service_commands import MLFLOW, mlflow_environment
from tests.integration.modelkit.bodies import (
    ACCEPTED,
    OTHERS,
    REFUSED,
    REFUSED_OTHERWISE,
    SPLIT,
)
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking, TrainedVersion


@pytest.fixture(scope="module")
def mlflow_scoring(
    trained: TrainedVersion, tracking: Tracking, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    def command(port: int) -> list[str]:
        options = ["--env-manager=local", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
        return [str(MLFLOW), "models", "serve", f"--model-uri={trained.uri}", *options]

    environment = {**mlflow_environment(), "MLFLOW_TRACKING_URI": tracking.url, "PYTHONHASHSEED": "0"}
    # The command finds uvicorn by PATH.
    environment["PATH"] = f"{MLFLOW.parent}:{environment['PATH']}"
    with ModelServer(command, lambda _port: environment, tmp_path_factory.mktemp("mlflow-scoring")) as server:
        yield server


def assert_alike(ours: httpx.Response, theirs: httpx.Response) -> None:
    """In all but MLflow's traceback, and numbers within what a compiled model is proven to."""
    assert ours.status_code == theirs.status_code
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if not theirs.text.startswith("{"):
        assert ours.text == theirs.text
    elif "predictions" in theirs.json():
        assert ours.json().keys() == theirs.json().keys()
        assert ours.json()["predictions"] == pytest.approx(theirs.json()["predictions"], rel=1e-5)
    else:
        assert without_traceback(ours) == without_traceback(theirs)


def without_traceback(answer: httpx.Response) -> dict[str, object]:
    return {key: value for key, value in answer.json().items() if key != "stack_trace"}


@pytest.mark.parametrize("name", [*ACCEPTED, *REFUSED])
def test_a_json_body_is_answered_as_mlflow_answers_it(
    server: ModelServer, mlflow_scoring: ModelServer, name: str
) -> None:
    body = json.dumps((ACCEPTED | REFUSED)[name]).encode()
    ours = server.invoke(body)
    assert_alike(ours, mlflow_scoring.invoke(body))
    assert ours.status_code == (200 if name in ACCEPTED else 400)


@pytest.mark.parametrize(
    "name",
    [
        "text for a number",
        "a list for a number",
        "a number too large",
        "a missing column",
        "a renamed column",
    ],
)
def test_a_refusal_names_the_column_that_is_at_fault(server: ModelServer, name: str) -> None:
    answer = server.invoke(json.dumps(REFUSED[name]).encode())
    assert "age" in answer.json()["message"]


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_body_is_answered_as_mlflow_answers_it(
    server: ModelServer, mlflow_scoring: ModelServer, name: str
) -> None:
    content_type, body = OTHERS[name]
    ours = server.invoke(body, content_type)
    assert_alike(ours, mlflow_scoring.invoke(body, content_type))
    assert ours.status_code < 500


@pytest.mark.parametrize(
    "before",
    [b"", b"\n\r\n", b" \n\t\n", b'"x\n,",'],
    ids=["plain", "empty lines", "blank lines", "quoted"],
)
def test_names_that_would_hold_a_thread_for_minutes_are_refused(server: ModelServer, before: bytes) -> None:
    """pandas takes 30 s for 40,000 columns of one name, and four times that for twice as many."""
    names, cells = b",".join([b"age"] * 200_000), b",".join([b"0"] * 200_000)
    answer = server.invoke(before + names + b"\n" + cells, "text/csv")
    assert answer.status_code == 400
    assert "columns of the same name" in answer.json()["message"]
    split = b'{"dataframe_split": {"columns": [%s], "data": [[%s]]}}' % (
        names.replace(b"age", b'"age"'),
        cells,
    )
    for same in (split, split.replace(b"0]]", b"NaN]]"), split.decode().encode("utf-16")):
        assert "columns of the same name" in server.invoke(same).json()["message"]
    for broken in (split[:-1], split.replace(b'["age"', b'{"age"')):
        assert server.invoke(broken).status_code == 400
    few = server.invoke(before + names[:3_999] + b"\n" + cells[:1_999], "text/csv")
    assert "columns of the same name" not in few.text


@pytest.mark.parametrize("content_type", ["application/json", "text/csv"])
def test_a_refusal_of_a_large_body_is_small(server: ModelServer, content_type: str) -> None:
    for body in (b"\xff" * 2**20, b"{" * 2**20):
        answer = server.invoke(body, content_type)
        assert answer.status_code == 400
        assert len(answer.content) < 2**18


@pytest.mark.parametrize("path", ["/ping", "/version", "/elsewhere", "/invocations"])
def test_every_other_get_is_answered_as_mlflow_answers_it(
    server: ModelServer, mlflow_scoring: ModelServer, path: str
) -> None:
    assert_alike(server.client.get(path), mlflow_scoring.client.get(path))


@pytest.mark.parametrize("name", REFUSED_OTHERWISE)
def test_a_body_that_makes_mlflow_fail_is_refused_as_the_callers_fault(
    server: ModelServer, name: str
) -> None:
    answer = server.invoke(REFUSED_OTHERWISE[name])
    assert answer.status_code == 400
    assert answer.json()["error_code"] in {"BAD_REQUEST", "INVALID_PARAMETER_VALUE"}
    assert answer.json()["message"]


def test_a_request_without_a_content_type_is_told_to_bring_one(server: ModelServer) -> None:
    answer = server.invoke(b"{}", None)
    assert answer.status_code == 415
    assert answer.text.startswith("Content-Type is missing")


def test_a_refused_request_leaves_the_connection_and_the_server_as_they_were(server: ModelServer) -> None:
    for body in REFUSED_OTHERWISE.values():
        server.invoke(body)
    answer = server.invoke(json.dumps({"dataframe_split": SPLIT}).encode())
    assert len(answer.json()["predictions"]) == 2


def test_the_models_own_example_is_a_ready_request(
    server: ModelServer, trained: TrainedVersion, tracking: Tracking
) -> None:
    answer = server.invoke(tracking.model_file(trained, "serving_input_example.json").encode())
    assert answer.status_code == 200
    assert all(25 <= value <= 346 for value in answer.json()["predictions"])
