"""How each server is started, and what it is asked in its own protocol. Peers as their own guides have it.

Each peer has an environment of its own, with one worker, and its logs of single requests off. What a peer is
given locally, ours fetches from MLflow, through its cache.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.service_commands import MLFLOW, ROOT, mlflow_environment, service_environment
from tests.services.model_environment import make_model_python, model_environment
from tests.services.ports import find_free_port

SOURCE = ROOT / "model-images" / "sklearn-model-1"
PEERS = Path(__file__).parent / "peers"

Rows = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Asked:
    """A model's table of rows, and what its training says of each."""

    columns: list[str]
    rows: list[list[float]]
    predictions: list[float]


@dataclass(frozen=True)
class Server:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    url: str
    write: Callable[[Asked, int], Any]  # the body for the first rows
    read: Callable[[Any], Any]  # the predictions of an answer


@dataclass(frozen=True)
class Models:
    """What is served: `folder` has each model as MLflow keeps it; MLflow itself has it by its name."""

    folder: Path
    mlflow_url: str


def ours(model: str, models: Models) -> Server:
    port = find_free_port()
    variables = {"SERVE_MODEL_URI": f"models:/{model}/1", "SERVE_CACHE_DIR": str(models.folder / "cache")}
    variables |= {"SERVE_HOST": "127.0.0.1", "SERVE_PORT": str(port)}
    return Server(
        "ours",
        [str(make_model_python(SOURCE)), "-m", "modelkit.serve"],
        model_environment(models.mlflow_url, **variables),
        f"http://127.0.0.1:{port}/invocations",
        write_frame,
        read_frame,
    )


def mlflow(model: str, models: Models) -> Server:
    port = find_free_port()
    options = ["--env-manager=local", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    environment = mlflow_environment()
    environment["PATH"] = f"{MLFLOW.parent}:{environment['PATH']}"  # it finds uvicorn by PATH
    return Server(
        "mlflow models serve",
        [str(MLFLOW), "models", "serve", f"--model-uri={models.folder / model}", *options],
        environment,
        f"http://127.0.0.1:{port}/invocations",
        write_frame,
        read_frame,
    )


def mlserver(model: str, models: Models) -> Server:
    """Its scikit-learn runtime, which is faster than the one for MLflow's models; in process.

    Its worker processes do not start with the uvloop that it allows.
    """
    port = find_free_port()
    python = make_model_python(PEERS / "mlserver")
    environment = service_environment() | {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(find_free_port()),
        "MLSERVER_METRICS_PORT": str(find_free_port()),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
        "MLSERVER_MODEL_NAME": model,
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_sklearn.SKLearnModel",
        "MLSERVER_MODEL_URI": str(models.folder / model / "model.pkl"),
    }
    return Server(
        "MLServer",
        [str(python.parent / "mlserver"), "start", str(PEERS / "mlserver")],
        environment,
        f"http://127.0.0.1:{port}/v2/models/{model}/infer",
        write_tensor,
        lambda answer: answer["outputs"][0]["data"],
    )


def bentoml(model: str, models: Models) -> Server:
    port = find_free_port()
    python = make_model_python(PEERS / "bentoml")
    environment = service_environment() | {
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(models.folder / "bentoml"),
        "MODEL_FILE": str(models.folder / model / "model.pkl"),
    }
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    options = ["--host=127.0.0.1", f"--port={port}", f"--working-dir={PEERS / 'bentoml'}"]
    return Server(
        "BentoML",
        [str(python.parent / "bentoml"), "serve", "service:Model", *options],
        environment,
        f"http://127.0.0.1:{port}/predict",
        lambda asked, count: {"rows": asked.rows[:count]},
        lambda answer: answer,
    )


def floor(_: str, models: Models) -> Server:
    """A constant answer: what no server in Python on this loop can go beyond."""
    port = find_free_port()
    return Server(
        "floor",
        [str(make_model_python(SOURCE)), str(Path(__file__).with_name("floor.py")), str(port)],
        service_environment(),
        f"http://127.0.0.1:{port}/invocations",
        write_frame,
        lambda _: None,
    )


def write_frame(asked: Asked, count: int) -> Any:
    return {"dataframe_split": {"columns": asked.columns, "data": asked.rows[:count]}}


def read_frame(answer: Any) -> Any:
    return answer["predictions"]


def write_tensor(asked: Asked, count: int) -> Any:
    """An array with a shape: its own protocol's quickest way."""
    cells = [cell for row in asked.rows[:count] for cell in row]
    shape = [count, len(asked.columns)]
    return {"inputs": [{"name": "rows", "shape": shape, "datatype": "FP64", "data": cells}]}
