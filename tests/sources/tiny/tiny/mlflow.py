"""What the tiny trainer does to MLflow, over plain HTTP."""

import json
import math
import os
import urllib.error
import urllib.request
from typing import Any

EXAMPLE_FILE = "serving_input_example.json"
MODEL_FILE = "MLmodel"
HELD_OUT_FILE = "evaluation/held_out.json"


class Tracking:
    def __init__(self) -> None:
        self.url = os.environ["MLFLOW_TRACKING_URI"]
        self.run_id = os.environ["MLFLOW_RUN_ID"]

    def log_metric(self, key: str, value: float) -> None:
        """Not a number goes as text, as MLflow's own clients send it: a bare NaN is stored as 0."""
        sent = "NaN" if math.isnan(value) else value
        self.call("POST", "runs/log-metric", run_id=self.run_id, key=key, value=sent, timestamp=0)

    def log_model(self, run_id: str, example: str | None, signature: dict[str, Any], held_out: str) -> str:
        """URI of a model with an input example, a signature and held-out rows, if they are given."""
        info = self.call("GET", f"runs/get?run_id={run_id}")["run"]["info"]
        begun = self.call(
            "POST", "logged-models", experiment_id=info["experiment_id"], source_run_id=run_id, name="model"
        )["model"]["info"]
        described: dict[str, Any] = {"flavors": {}}
        if signature:
            described["signature"] = {part: json.dumps(value) for part, value in signature.items()}
        if example is not None:
            described["saved_input_example_info"] = {"serving_input_path": EXAMPLE_FILE}
            self.upload(f"{begun['artifact_uri']}/{EXAMPLE_FILE}", example)
        if held_out:
            self.upload(f"{begun['artifact_uri']}/{HELD_OUT_FILE}", held_out)
        self.upload(f"{begun['artifact_uri']}/{MODEL_FILE}", json.dumps(described))
        model_id = begun["model_id"]
        self.call("PATCH", f"logged-models/{model_id}", model_id=model_id, status="LOGGED_MODEL_READY")
        return f"models:/{model_id}"

    def register(self, name: str, run_id: str, source: str) -> None:
        try:
            self.call("POST", "registered-models/create", name=name)
        except urllib.error.HTTPError as error:
            if error.code != 400:  # 400: it is there already
                raise
        model_id = source.removeprefix("models:/")
        self.call("POST", "model-versions/create", name=name, source=source, run_id=run_id, model_id=model_id)

    def create_other_run(self) -> str:
        info = self.call("GET", f"runs/get?run_id={self.run_id}")["run"]["info"]
        run = self.call("POST", "runs/create", experiment_id=info["experiment_id"])["run"]
        return str(run["info"]["run_id"])

    def upload(self, uri: str, content: str) -> None:
        path = uri.removeprefix("mlflow-artifacts:/")
        self.send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content.encode())

    def call(self, method: str, endpoint: str, **fields: Any) -> dict[str, Any]:
        body = json.dumps(fields).encode() if fields else None
        answer: dict[str, Any] = json.loads(self.send(method, f"/api/2.0/mlflow/{endpoint}", body) or b"{}")
        return answer

    def send(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            content: bytes = response.read()
            return content
