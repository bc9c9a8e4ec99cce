"""What MLflow's server says about a training, read by its REST API alone."""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

Json = dict[str, Any]


@dataclass(frozen=True)
class TrainedVersion:
    name: str
    version: str
    run_id: str
    source: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


class Tracking:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/api/2.0", timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def create_run(self, experiment: str) -> str:
        found = self._client.get("/mlflow/experiments/get-by-name", params={"experiment_name": experiment})
        if found.status_code == 404:
            made = self._post("/mlflow/experiments/create", {"name": experiment})
            experiment_id = made["experiment_id"]
        else:
            experiment_id = found.json()["experiment"]["experiment_id"]
        made = self._post(
            "/mlflow/runs/create", {"experiment_id": experiment_id, "start_time": int(time.time() * 1000)}
        )
        run_id: str = made["run"]["info"]["run_id"]
        return run_id

    def run(self, run_id: str) -> Json:
        run: Json = self._get("/mlflow/runs/get", run_id=run_id)["run"]
        return run

    def runs(self, experiment: str) -> list[Json]:
        found = self._get("/mlflow/experiments/get-by-name", experiment_name=experiment)["experiment"]
        answer = self._post("/mlflow/runs/search", {"experiment_ids": [found["experiment_id"]]})
        runs: list[Json] = answer.get("runs", [])
        return runs

    def versions_of_run(self, run_id: str) -> list[TrainedVersion]:
        answer = self._get("/mlflow/model-versions/search", filter=f"run_id = '{run_id}'")
        return [
            TrainedVersion(found["name"], found["version"], found["run_id"], found["source"])
            for found in answer.get("model_versions", [])
        ]

    def version_of_run(self, run_id: str) -> TrainedVersion:
        (only,) = self.versions_of_run(run_id)
        return only

    def set_alias(self, version: TrainedVersion, alias: str) -> None:
        body = {"name": version.name, "alias": alias, "version": version.version}
        self._post("/mlflow/registered-models/alias", body)

    def delete_version(self, version: TrainedVersion) -> None:
        body = {"name": version.name, "version": version.version}
        self._client.request("DELETE", "/mlflow/model-versions/delete", json=body).raise_for_status()

    def model_file(self, version: TrainedVersion, path: str) -> str:
        """A file of the logged model, as text."""
        model_id = version.source.removeprefix("models:/")
        model = self._get(f"/mlflow/logged-models/{model_id}")["model"]
        folder = model["info"]["artifact_uri"].removeprefix("mlflow-artifacts:/")
        answer = self._client.get(f"/mlflow-artifacts/artifacts/{folder.lstrip('/')}/{path}")
        return answer.raise_for_status().text

    def _get(self, path: str, **parameters: str) -> Json:
        answer: Json = self._client.get(path, params=parameters).raise_for_status().json()
        return answer

    def _post(self, path: str, body: Json) -> Json:
        answer: Json = self._client.post(path, json=body).raise_for_status().json()
        return answer
