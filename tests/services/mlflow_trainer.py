"""What a trainer does to MLflow, over plain HTTP: no test then needs scikit-learn, or seconds of imports."""

import json
import math
from collections.abc import Mapping
from typing import Any

import httpx

from router.registries.base import RunDataset
from router.registries.mlflow_answers import CONTEXT_TAG

MODEL_FILE = "MLmodel"
EXAMPLE_FILE = "serving_input_example.json"


class MlflowTrainer:
    def __init__(self, url: str) -> None:
        self._url = url

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            # As MLflow's own client writes it; any other spelling of NaN is stored as 0.
            written = "NaN" if math.isnan(value) else value
            body = {"run_id": run_id, "key": key, "value": written, "timestamp": 0}
            self._call("POST", "runs/log-metric", body)

    def log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        for key, value in parameters.items():
            self._call("POST", "runs/log-parameter", {"run_id": run_id, "key": key, "value": value})

    def log_dataset(self, run_id: str, dataset: RunDataset) -> None:
        described = {
            "name": dataset.name,
            "digest": dataset.digest,
            "source_type": dataset.source_type,
            "source": dataset.source,
        }
        tags = [{"key": CONTEXT_TAG, "value": dataset.context}] if dataset.context else []
        self._call(
            "POST", "runs/log-inputs", {"run_id": run_id, "datasets": [{"tags": tags, "dataset": described}]}
        )

    def log_model(
        self,
        run_id: str,
        *,
        signature: Mapping[str, Any] | None = None,
        input_example: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """A complete logged model; returns its URI."""
        info = self.begin_model(run_id)
        for path, content in describe_model(signature, input_example, files).items():
            self._upload(f"{info['artifact_uri']}/{path}", content)
        body = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
        self._call("PATCH", f"logged-models/{info['model_id']}", body)
        return f"models:/{info['model_id']}"

    def begin_model(self, run_id: str) -> dict[str, Any]:
        """A model whose trainer has not finished writing it."""
        body = {"experiment_id": self._run(run_id)["experiment_id"], "source_run_id": run_id, "name": "model"}
        info: dict[str, Any] = self._call("POST", "logged-models", body)["model"]["info"]
        return info

    def log_artifact_model(self, run_id: str, folder: str, created: str) -> str:
        """A model among the run's artifacts, as clients before MLflow 3 logged it; returns its URI."""
        content = f"flavors: {{}}\nutc_time_created: '{created}'\n".encode()
        root = self._run(run_id)["artifact_uri"]
        self._upload(f"{root}/{folder}/{MODEL_FILE}", content)
        self._upload(f"{root}/{folder}/data/weights.bin", b"0")
        return f"runs:/{run_id}/{folder}"

    def delete_run(self, run_id: str) -> None:
        self._call("POST", "runs/delete", {"run_id": run_id})

    def delete_experiment(self, name: str) -> None:
        found = self._call("GET", "experiments/get-by-name", {"experiment_name": name})
        self._call("POST", "experiments/delete", {"experiment_id": found["experiment"]["experiment_id"]})

    def _run(self, run_id: str) -> dict[str, Any]:
        info: dict[str, Any] = self._call("GET", "runs/get", {"run_id": run_id})["run"]["info"]
        return info

    def _upload(self, uri: str, content: bytes) -> None:
        path = uri.removeprefix("mlflow-artifacts:/")
        httpx.put(
            f"{self._url}/api/2.0/mlflow-artifacts/artifacts/{path}", content=content, timeout=30
        ).raise_for_status()

    def _call(self, method: str, endpoint: str, fields: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._url}/api/2.0/mlflow/{endpoint}"
        if method == "GET":
            response = httpx.get(url, params=fields, timeout=30)
        else:
            response = httpx.request(method, url, json=fields, timeout=30)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


def describe_model(
    signature: Mapping[str, Any] | None, input_example: bytes | None, files: Mapping[str, bytes] | None
) -> dict[str, bytes]:
    """The files of a model, path -> content. Its MLmodel is written as JSON, which is YAML as well."""
    described: dict[str, Any] = {"flavors": {}}
    content = dict(files or {})
    if signature is not None:
        described["signature"] = {
            part: value if value is None else json.dumps(value) for part, value in signature.items()
        }
    if input_example is not None:
        described["saved_input_example_info"] = {"serving_input_path": EXAMPLE_FILE}
        content[EXAMPLE_FILE] = input_example
    return {MODEL_FILE: json.dumps(described).encode()} | content
