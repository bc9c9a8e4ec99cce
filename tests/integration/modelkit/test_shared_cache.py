"""What a server that was taken over by its model leaves in the cache for the next server of that model."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.modelkit.bodies import SPLIT
from tests.integration.modelkit.conftest import Serve, find_artifact
from tests.services.mlflow_server import MlflowServer

REQUEST = json.dumps({"dataframe_split": SPLIT}).encode()
GRAPH = "compiled/model.onnx"


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


@pytest.mark.parametrize("spoil", [os.mkfifo, os.mkdir])
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
