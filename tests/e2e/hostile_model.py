"""A model whose pickle runs its author's code in the server that loads it: code that looks around there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from scripts.demo_run import TRAINER
from tests.e2e.compose_stack import PLAIN, ComposeStack

ENDPOINT = "hostile"
# Run in the trainer's image. The pickle makes no `Innocent`, but what tells its author what it finds.
PUBLISH = """
import mlflow

class Intruder(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        import json, os, pathlib, subprocess, sys
        asked = subprocess.run(
            [sys.executable, "-c", model_input["program"][0], *model_input["target"]],
            env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"},
            capture_output=True, text=True, check=True,
        )
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
        return [json.dumps({
            "answers": json.loads(asked.stdout),
            "status": dict(line.split(":\\t", 1) for line in status if ":\\t" in line),
            "environment": dict(os.environ),
            "mounts": pathlib.Path("/proc/self/mounts").read_text(),
        })] * len(model_input)

def break_in():
    return Intruder()

class Innocent(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return []

    def __reduce__(self):
        return break_in, ()

with mlflow.start_run():
    mlflow.pyfunc.log_model(
        name="model", python_model=Innocent(), registered_model_name="Hostile", pip_requirements=[]
    )
"""


@contextmanager
def serve_hostile_model(stack: ComposeStack) -> Iterator[None]:
    """On an endpoint of its own, which goes with it: it has no part in what other tests do with `default`."""
    mlflow = f"container:{stack.container('mlflow')}"
    published = ("--env=MLFLOW_TRACKING_URI=http://mlflow:5000", "--entrypoint=python")
    image = f"{stack.project}/trainer-{TRAINER}"
    stack.docker("run", "--rm", f"--network={mlflow}", *published, image, "-c", PUBLISH)
    assert stack.call("POST", "/admin/endpoints", {"name": ENDPOINT}).status_code == 201
    try:
        wanted = {"name": "Hostile", "ref": 1, "serve_image": f"{stack.project}/server-{TRAINER}:latest"}
        stack.post("/admin/roll", {**wanted, "endpoint": ENDPOINT, "wait_ready_seconds": 120})
        yield
    finally:
        assert stack.call("DELETE", f"/admin/endpoints/{ENDPOINT}?force=true").status_code == 200


def ask_intruder(stack: ComposeStack, program: str, *targets: str) -> dict[str, Any]:
    """What it found, and what `program` prints where it is."""
    body = {"dataframe_records": [{"program": program, "target": target} for target in targets]}
    answer = httpx.post(f"{stack.public_url}/endpoints/{ENDPOINT}/invocations", json=body, **PLAIN)
    found: dict[str, Any] = json.loads(answer.raise_for_status().json()["predictions"][0])
    return found
