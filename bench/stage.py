"""What the benchmarks drive: a router with its Caddy over a real MLflow, and versions to switch between."""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.demo_run import ROWS
from tests.services.mlflow_server import run_mlflow_server
from tests.services.yard import Yard, run_yard

TINY = "tiny"  # starts in 100 ms and answers in 1 ms, so that what is measured is not it
TINY_MODEL = "Tiny"
FOREST = "forest"  # the reference trainer and server
FOREST_MODEL = "Forest"
BODY = json.dumps(ROWS).encode()  # a prediction that both models take
SPECS: dict[str, dict[str, Any]] = {
    TINY: {"source": "tests/sources/well", "env": {"REGISTERED_MODEL_NAME": TINY_MODEL}},
    FOREST: {
        "source": "model-images/sklearn-model-1",
        "env": {"REGISTERED_MODEL_NAME": FOREST_MODEL, "N_ESTIMATORS": 10, "MAX_DEPTH": 8},
    },
}
SETTLED_SECONDS = 2.0


@contextmanager
def open_mlflow() -> Iterator[str]:
    """Its URL."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-bench-") as folder,
        run_mlflow_server(Path(folder)) as server,
    ):
        yield server.url


@contextmanager
def open_yard(mlflow_url: str, settings: Mapping[str, str] | None = None) -> Iterator[Yard]:
    """Started, with a trainer of each kind."""
    with run_yard(mlflow_url, {**package_settings(), **(settings or {})}) as yard:
        path = yard.specs / "bench.json"
        path.write_text(json.dumps(SPECS))
        then = time.time() - SETTLED_SECONDS  # the router waits for files that may be half-written
        os.utime(path, (then, then))
        yard.start()
        yield yard


@contextmanager
def open_stage(settings: Mapping[str, str] | None = None) -> Iterator[Yard]:
    with open_mlflow() as mlflow_url, open_yard(mlflow_url, settings) as yard:
        yield yard


def package_settings() -> dict[str, str]:
    """Where uv finds packages, which the reference model's environment is made of."""
    return {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))}


def train_two(yard: Yard, trainer: str) -> tuple[int, int]:
    """Two versions to switch between."""
    first, second = (int(yard.post(f"/admin/train/{trainer}")["version"]) for _ in range(2))
    return first, second


def roll(yard: Yard, model: str, version: int) -> dict[str, Any]:
    return yard.post("/admin/roll", {"name": model, "ref": version, "wait_ready_seconds": 120})


def warm_two(yard: Yard) -> None:
    """Two tiny servers, the second with the traffic and the first warm: each rollback is a switch."""
    for version in train_two(yard, TINY):
        roll(yard, TINY_MODEL, version)
