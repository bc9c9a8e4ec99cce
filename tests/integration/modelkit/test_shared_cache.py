"""What a server that was taken over by its model leaves in the cache for the next server of that model."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.modelkit.bodies import SPLIT, changed
from tests.integration.modelkit.conftest import Serve, find_artifact
from tests.services.mlflow_server import MlflowServer

REQUEST = json.dumps({"dataframe_split": SPLIT}).encode()
GRAPH = "compiled/model.onnx"
DEADLINE = 60  # seconds


def serve_once(serve: Serve, mlflow: MlflowServer, cache: Path) -> tuple[Any, str]:
    """Its answer and its log."""
    own = {"MLFLOW_TRACKING_URI": mlflow.url, "SERVE_CACHE_DIR": str(cache)}
    with serve("models:/Own/1", **own) as server:
        return server.invoke(REQUEST).json(), server.log


def read_index(cache: Path) -> tuple[Path, Any]:
    """What the cache remembers of the only version in it."""
    (index,) = (cache / "models").iterdir()
    return index, json.loads(index.read_bytes())


def test_what_another_server_wrote_into_the_cache_is_not_believed(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    """Neither what it says belongs to a version, nor what lies where a file should be."""
    before, _ = serve_once(serve, own_mlflow, cache)
    index, remembered = read_index(cache)
    files = remembered["digests"]["files"]
    graph = files[GRAPH]["sha256"]
    files[GRAPH] = files["compiled/manifest.json"]
    index.write_text(json.dumps(remembered))
    (cache / "sha256" / graph).unlink()
    os.mkfifo(cache / "sha256" / graph)
    assert serve_once(serve, own_mlflow, cache)[0] == before
    assert (cache / "sha256" / graph).is_file()


def test_a_file_of_the_right_size_is_not_believed_of_a_model_without_digests(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    find_artifact(own_mlflow, "digests.json").unlink()
    before, _ = serve_once(serve, own_mlflow, cache)
    index, remembered = read_index(cache)
    for digest in remembered["digests"]["files"].values():
        forged = bytes(digest["size"])
        digest["sha256"] = hashlib.sha256(forged).hexdigest()
        (cache / "sha256" / digest["sha256"]).write_bytes(forged)
    forgery = json.dumps(remembered)
    index.write_text(forgery)
    assert serve_once(serve, own_mlflow, cache)[0] == before
    assert read_index(cache)[1] != json.loads(forgery)


def make_huge(index: Path) -> None:
    index.touch()
    os.truncate(index, 200 << 30)


def nest_deeply(index: Path) -> None:
    index.write_text("[" * 1_000_000)


def write_no_utf_8(index: Path) -> None:
    index.write_bytes(b'{"folder": "\xff"}')


def link_the_models_elsewhere(index: Path) -> None:
    index.parent.rmdir()
    index.parent.symlink_to("/nonexistent")


@pytest.mark.parametrize(
    "spoil", [os.mkfifo, os.mkdir, make_huge, nest_deeply, write_no_utf_8, link_the_models_elsewhere]
)
def test_a_cache_that_cannot_be_used_stops_no_server(
    serve: Serve, own_mlflow: MlflowServer, cache: Path, spoil: Any
) -> None:
    before, _ = serve_once(serve, own_mlflow, cache)
    index, _ = read_index(cache)
    index.unlink()
    spoil(index)
    assert serve_once(serve, own_mlflow, cache)[0] == before


def test_a_server_that_cannot_write_to_the_cache_does_without(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    before, _ = serve_once(serve, own_mlflow, cache)
    for blob in (cache / "sha256").iterdir():
        blob.unlink()
        blob.mkdir()
    found, log = serve_once(serve, own_mlflow, cache)
    assert found == before
    assert f"SERVE_CACHE_DIR={cache}: " in log


def test_a_file_that_stays_spoilt_is_fetched_without_the_cache(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    own = {"MLFLOW_TRACKING_URI": own_mlflow.url, "SERVE_CACHE_DIR": str(cache)}
    with serve("models:/Own/1", **own) as server:
        for blob in (cache / "sha256").iterdir():
            blob.unlink()
            blob.mkdir()
        # The native model is read only now.
        assert server.invoke(json.dumps(changed(age=None)).encode()).status_code == 200
        assert "fetched without the cache" in server.log


def test_what_is_remembered_names_no_file_outside_of_the_model(
    serve: Serve, own_mlflow: MlflowServer, cache: Path
) -> None:
    serve_once(serve, own_mlflow, cache)
    index, remembered = read_index(cache)
    remembered["digests"]["files"]["../../escaped"] = remembered["digests"]["files"][GRAPH]
    index.write_text(json.dumps(remembered))
    own_mlflow.stop()
    own = {"MLFLOW_TRACKING_URI": own_mlflow.url, "SERVE_CACHE_DIR": str(cache)}
    with serve("models:/Own/1", await_answers=False, **own) as server:
        assert server.wait(DEADLINE) == 1
        assert "models:/Own/1 cannot be loaded: MLflow at " in server.log
