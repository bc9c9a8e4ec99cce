"""The reference model, trained and served for real, in an environment made from its own lock."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from scripts.service_commands import ROOT
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking, TrainedVersion
from tests.services.mlflow_server import MlflowServer, run_mlflow_server
from tests.services.model_environment import make_model_python, model_environment

SERVER = ("-m", "modelkit.serve")
SOURCE = ROOT / "model-images" / "sklearn-model-1"

Train = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[..., ModelServer]


@pytest.fixture(scope="session")
def model_python() -> Path:
    return make_model_python(SOURCE)


@pytest.fixture(scope="session")
def tracking(mlflow_server: MlflowServer) -> Iterator[Tracking]:
    with Tracking(mlflow_server.url) as tracking:
        yield tracking


@pytest.fixture(scope="session")
def train(model_python: Path, tracking: Tracking) -> Train:
    """`train(source=FOLDER, VARIABLE=value, ...)` runs that folder's train.py as a runtime would."""

    def run(source: Path = SOURCE, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(model_python), "train.py"],
            cwd=source,
            env=model_environment(tracking.url, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def trained(train: Train, tracking: Tracking) -> TrainedVersion:
    """A small DiabetesRF, trained in a run made for it."""
    run_id = tracking.create_run("spine")
    process = train(MLFLOW_RUN_ID=run_id, N_ESTIMATORS="20", MAX_DEPTH="5", REGISTERED_MODEL_NAME="Shared")
    assert process.returncode == 0, process.stderr
    return tracking.version_of_run(run_id)


@pytest.fixture(scope="session")
def serve(model_python: Path, tracking: Tracking, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """`with serve(model_uri, VARIABLE=value, ...) as server`: a reference server for that block."""

    def describe(
        model_uri: str, *, await_answers: bool = True, program: Sequence[str] = SERVER, **variables: str
    ) -> ModelServer:
        def environment(port: int) -> dict[str, str]:
            address = {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": str(port)}
            return model_environment(tracking.url, **{"SERVE_MODEL_URI": model_uri, **address, **variables})

        return ModelServer(
            lambda _port: [str(model_python), *program],
            environment,
            tmp_path_factory.mktemp("server"),
            await_answers=await_answers,
        )

    return describe


@pytest.fixture(scope="session")
def server(serve: Serve, trained: TrainedVersion) -> Iterator[ModelServer]:
    """Serves `trained`; shared, so no test may stop it."""
    # MLflow writes a set into a message; with one hash seed, two servers write it in one order.
    with serve(trained.uri, PYTHONHASHSEED="0") as server:
        yield server


@pytest.fixture(scope="session")
def trained_once(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """An MLflow server that holds version 1 of `Own`."""
    with run_mlflow_server(tmp_path_factory.mktemp("trained") / "mlflow") as mlflow:
        process = train(MLFLOW_TRACKING_URI=mlflow.url, N_ESTIMATORS="3", REGISTERED_MODEL_NAME="Own")
        assert process.returncode == 0, process.stderr
        yield mlflow


@pytest.fixture
def own_mlflow(trained_once: MlflowServer, tmp_path: Path) -> Iterator[MlflowServer]:
    """That server, which a test may stop, and whose files it may spoil: they are put back."""
    artifacts, kept = trained_once.directory / "artifacts", tmp_path / "kept"
    shutil.copytree(artifacts, kept)
    yield trained_once
    shutil.rmtree(artifacts)
    shutil.copytree(kept, artifacts)
    if not trained_once.running:
        trained_once.start()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def find_artifact(mlflow: MlflowServer, name: str) -> Path:
    (found,) = (path for path in mlflow.directory.rglob(name) if "artifacts" in path.parts)
    return found


def change_artifacts(mlflow: MlflowServer, contents: Mapping[str, bytes | None]) -> None:
    """Writes these files of its only model, or removes them, and digests that fit."""
    index = find_artifact(mlflow, "digests.json")
    digests = json.loads(index.read_bytes())
    for path, content in contents.items():
        del digests["files"][path]
        if content is None:
            (index.parent / path).unlink()
        else:
            (index.parent / path).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            digests["files"][path] = {"sha256": sha256, "size": len(content)}
    index.write_text(json.dumps(digests))
