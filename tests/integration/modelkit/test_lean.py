"""A compiled model is served without what the native one needs, and without MLflow once it is cached."""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.integration.modelkit.bodies import COLUMNS, NOT_A_NUMBER, ROW, SPLIT, changed
from tests.integration.modelkit.breaking_mlflow import run_breaking_mlflow
from tests.integration.modelkit.conftest import Serve, change_artifacts, find_artifact
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking, TrainedVersion
from tests.services.mlflow_server import MlflowServer
from tests.services.model_environment import model_environment

REQUEST = json.dumps({"dataframe_split": SPLIT}).encode()
DEADLINE = 60  # seconds

# Opens the model as the server does, answers a request, and tells which heavy packages are imported.
WITNESS = """
import json, os, sys, tempfile
from pathlib import Path
import modelkit.serve.__main__
import uvicorn
from modelkit.serve.app import App
from modelkit.serve.opening import open_model
from modelkit.serve.telemetry import Telemetry
from modelkit.settings import ServeSettings, read_settings

with tempfile.TemporaryDirectory() as folder:
    served = open_model(read_settings(ServeSettings, os.environ), Path(folder), Telemetry())
    App(served.predict, served.about, served.limits, served.lean)
    answer = served.lean.answer(sys.stdin.buffer.read())
    heavy = {"mlflow", "pandas", "sklearn", "scipy", "skl2onnx", "fastapi"} & set(sys.modules)
    print(json.dumps({"answer": json.loads(answer), "heavy": sorted(heavy)}))
"""


def test_a_compiled_model_is_served_without_mlflow_pandas_or_scikit_learn(
    model_python: Path, tracking: Tracking, trained: TrainedVersion
) -> None:
    process = subprocess.run(
        [str(model_python), "-c", WITNESS],
        input=REQUEST,
        env=model_environment(tracking.url, SERVE_MODEL_URI=trained.uri),
        capture_output=True,
        check=True,
    )
    told = json.loads(process.stdout)
    assert told["heavy"] == []
    assert len(told["answer"]["predictions"]) == 2


def test_the_server_says_what_it_serves_and_how(server: ModelServer, trained: TrainedVersion) -> None:
    about = server.client.get("/metadata").json()
    expected = {
        "model_name": "Shared",
        "model_version": "1",
        "run_id": trained.run_id,
        "model_uri": trained.uri,
        "path": "compiled",
        "columns": COLUMNS,
    }
    assert {field: about[field] for field in expected} == expected
    assert about["reason"].startswith("proven on 345 rows")
    assert ", compiled: proven on 345 rows" in server.log


def test_what_was_not_proven_is_left_to_the_native_model(serve: Serve, trained: TrainedVersion) -> None:
    with serve(trained.uri) as server:
        assert server.invoke(REQUEST).status_code == 200
        assert "native model loaded" not in server.log
        with_a_gap = server.invoke(json.dumps(changed(age=NOT_A_NUMBER)).encode())
        assert with_a_gap.status_code == 200
        assert "native model loaded" in server.log
        metrics = server.client.get("/metrics").text
    assert 'modelkit_requests_total{lane="compiled",status="200"} 1' in metrics
    assert 'modelkit_requests_total{lane="native",status="200"} 1' in metrics


def test_every_answer_names_version_and_request(server: ModelServer) -> None:
    first, second = server.invoke(REQUEST), server.invoke(REQUEST)
    assert first.headers["x-model-version"] == "1"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    named = server.client.get("/ping", headers={"x-request-id": "mine"})
    assert named.headers["x-request-id"] == "mine"


def test_a_cached_model_is_served_while_mlflow_is_gone(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    own = {"MLFLOW_TRACKING_URI": own_mlflow.url, "SERVE_CACHE_DIR": str(cache)}
    with serve("models:/Own/1", **own) as server:
        before = server.invoke(REQUEST).json()
    own_mlflow.stop()
    with serve("models:/Own/1", **own) as server:
        assert server.invoke(REQUEST).json() == before
        # The native model was cached with it.
        assert server.invoke(json.dumps(changed(age=None)).encode()).status_code == 200
        assert "as it was fetched before" in server.log
    with serve("models:/Own/2", await_answers=False, **own) as server:
        assert server.wait(DEADLINE) == 1
        assert "models:/Own/2 cannot be loaded: MLflow at " in server.log


def test_a_file_that_changed_in_the_cache_is_fetched_again(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    own = {"MLFLOW_TRACKING_URI": own_mlflow.url, "SERVE_CACHE_DIR": str(cache)}
    with serve("models:/Own/1", **own) as server:
        before = server.invoke(REQUEST).json()
    for blob in (cache / "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
    with serve("models:/Own/1", **own) as server:
        assert server.invoke(REQUEST).json() == before
        assert "has changed on the disk: fetched again" in server.log


def test_a_download_that_breaks_off_is_begun_again(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    with run_breaking_mlflow(own_mlflow) as mlflow:
        mlflow.breaks = {"model.onnx": 1, "digests.json": 1}
        with serve("models:/Own/1", MLFLOW_TRACKING_URI=mlflow.url, SERVE_CACHE_DIR=str(cache)) as server:
            assert server.invoke(REQUEST).status_code == 200
        assert set(mlflow.breaks.values()) == {0}


def test_a_server_whose_download_never_ends_is_never_healthy_and_keeps_no_half_files(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    with run_breaking_mlflow(own_mlflow) as mlflow:
        mlflow.breaks = {"model.onnx": 1000}
        own = {"MLFLOW_TRACKING_URI": mlflow.url, "SERVE_CACHE_DIR": str(cache)}
        with serve("models:/Own/1", await_answers=False, **own) as server:
            assert server.wait(DEADLINE) == 1
            assert "models:/Own/1 cannot be loaded: MLflow at " in server.log
            assert "Traceback" not in server.log
    for blob in (cache / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


@pytest.mark.parametrize("content", ["{", '{"files": {"../../x": {"sha256": "%s", "size": 1}}}' % ("0" * 64)])
def test_digests_that_make_no_sense_are_refused_in_one_line(
    serve: Serve, own_mlflow: MlflowServer, content: str
) -> None:
    find_artifact(own_mlflow, "digests.json").write_text(content)
    with serve("models:/Own/1", await_answers=False, MLFLOW_TRACKING_URI=own_mlflow.url) as server:
        assert server.wait(DEADLINE) == 1
        assert "models:/Own/1 cannot be loaded: digests.json " in server.log
        assert "Traceback" not in server.log


def test_a_corrupt_file_in_mlflow_is_never_served(serve: Serve, own_mlflow: MlflowServer) -> None:
    graph = find_artifact(own_mlflow, "model.onnx")
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with serve("models:/Own/1", await_answers=False, MLFLOW_TRACKING_URI=own_mlflow.url) as server:
        assert server.wait(DEADLINE) == 1
        assert "compiled/model.onnx is corrupt" in server.log
        assert "Traceback" not in server.log


def test_a_model_without_digests_is_served_and_the_log_says_so(
    serve: Serve, own_mlflow: MlflowServer
) -> None:
    find_artifact(own_mlflow, "digests.json").unlink()
    with serve("models:/Own/1", MLFLOW_TRACKING_URI=own_mlflow.url) as server:
        assert server.invoke(REQUEST).status_code == 200
        assert "the model has no digests: its files are checked by their size alone" in server.log


def test_a_model_without_digests_is_served_from_an_object_store_too(
    serve: Serve, own_mlflow: MlflowServer
) -> None:
    find_artifact(own_mlflow, "digests.json").unlink()
    with run_breaking_mlflow(own_mlflow) as mlflow:
        mlflow.is_on_an_object_store = True
        with serve("models:/Own/1", MLFLOW_TRACKING_URI=mlflow.url) as server:
            assert server.invoke(REQUEST).status_code == 200


def test_a_model_in_a_folder_needs_no_mlflow(serve: Serve, own_mlflow: MlflowServer) -> None:
    folder = find_artifact(own_mlflow, "MLmodel").parent
    own_mlflow.stop()
    with serve(str(folder), MLFLOW_TRACKING_URI="") as server:
        assert server.client.get("/metadata").json()["path"] == "compiled"
        records = {"dataframe_records": [dict(zip(COLUMNS, ROW, strict=True))]}
        assert server.invoke(json.dumps(records).encode()).status_code == 200


def test_a_folder_that_is_asked_for_and_is_none_is_named(serve: Serve) -> None:
    with serve("models:/Own/1", await_answers=False, MODEL_SERVED="local") as server:
        assert server.wait(DEADLINE) == 1
        assert "models:/Own/1 cannot be loaded: MODEL_SERVED=local" in server.log


def test_mlflow_may_be_named_by_its_other_variable(serve: Serve, own_mlflow: MlflowServer) -> None:
    other = {"MLFLOW_TRACKING_URI": "", "MLFLOW_SERVER_HOST": own_mlflow.url, "MODEL_SERVED": "mlflow"}
    with serve("models:/Own/1", **other) as server:
        assert server.client.get("/metadata").json()["mlflow_uri"] == own_mlflow.url


def test_a_password_in_mlflows_address_reaches_mlflow_and_nobody_else(
    serve: Serve, own_mlflow: MlflowServer
) -> None:
    with run_breaking_mlflow(own_mlflow) as mlflow:
        mlflow.wanted = "Basic " + base64.b64encode(b"me:p@ss").decode()
        address = mlflow.url.replace("//", "//me:p%40ss@")
        with serve("models:/Own/1", MLFLOW_TRACKING_URI=address) as server:
            told = server.client.get("/metadata")
            assert told.json()["mlflow_uri"] == mlflow.url
            assert "p%40ss" not in told.text + server.log


def test_a_folder_is_refused_by_name_where_only_mlflow_will_do(
    serve: Serve, own_mlflow: MlflowServer
) -> None:
    folder = find_artifact(own_mlflow, "MLmodel").parent
    with serve(str(folder), await_answers=False, MODEL_SERVED="mlflow") as server:
        assert server.wait(DEADLINE) == 1
        assert f"{folder} cannot be loaded: MODEL_SERVED=mlflow, and it is on this disk" in server.log


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("compiled/model.onnx", b"no graph"),
        ("compiled/model.onnx", None),
        ("compiled/manifest.json", b'{"columns": "\xff"}'),
    ],
)
def test_a_compiled_form_that_cannot_be_used_leaves_the_native_model(
    serve: Serve, own_mlflow: MlflowServer, name: str, content: bytes | None
) -> None:
    change_artifacts(own_mlflow, {name: content})
    with serve("models:/Own/1", MLFLOW_TRACKING_URI=own_mlflow.url) as server:
        about = server.client.get("/metadata").json()
        assert about["path"] == "native"
        assert about["reason"].startswith("its compiled form cannot be used: ")
        assert server.invoke(REQUEST).status_code == 200


def test_a_model_that_cannot_be_unpickled_is_told_in_one_line(serve: Serve, own_mlflow: MlflowServer) -> None:
    change_artifacts(own_mlflow, {"compiled/manifest.json": None, "model.pkl": b"no pickle"})
    with serve("models:/Own/1", await_answers=False, MLFLOW_TRACKING_URI=own_mlflow.url) as server:
        assert server.wait(DEADLINE) == 1
        assert "models:/Own/1 cannot be loaded: " in server.log
        assert "Traceback" not in server.log
