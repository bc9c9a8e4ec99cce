"""The reference model, trained, switched to and asked through the public port: all that was promised."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from scripts.service_commands import ROOT
from tests.integration.spine.stage import read_run, read_versions, wait_for_end
from tests.services.environments import share_environments
from tests.services.mlflow_server import MlflowServer
from tests.services.yard import Yard, run_yard

SPEC = "sklearn-model-1"
SOURCE = "model-images/sklearn-model-1"
MODEL = "DiabetesRF"
COLUMNS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
ROW = [0.038, 0.051, 0.062, 0.022, -0.044, -0.035, -0.043, -0.003, 0.02, -0.018]
Json = dict[str, Any]

pytestmark = pytest.mark.xdist_group("reference model")  # its fixtures are dear: one worker is enough


@pytest.fixture(scope="module")
def yard(mlflow_server: MlflowServer) -> Iterator[Yard]:
    index = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))}
    with run_yard(mlflow_server.url, {**index, "DRAIN_GRACE_SEC": "5"}) as yard:
        shutil.copy(ROOT / "specs" / f"{SPEC}.yaml", yard.specs)
        share_environments(yard.state)
        yard.start()
        yield yard


@pytest.fixture(scope="module")
def trained(yard: Yard) -> Json:
    """The answer to the first train_then_roll, before which nothing serves."""
    assert yard.get("/status")["healthy"] is False
    assert yard.predict().status_code == 503
    body = {"wait_seconds": 600, "parameters": {"N_ESTIMATORS": 20, "MAX_DEPTH": 6}}
    answer = yard.call("POST", f"/admin/train_then_roll/{SPEC}", body)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    wait_for_end(yard, found["rollout_id"])
    return found


def test_the_answer_has_every_promised_field(yard: Yard, trained: Json) -> None:
    version = max(read_versions(yard, MODEL))
    expected = {
        "registered_model": MODEL,
        "version": version,
        "alias_set": "deployed",
        "model_uri": f"models:/{MODEL}/{version}",
        "image_key": None,
        "serve_image": SOURCE,
        "rolled": True,
        "public_url": yard.public_url,
        "warnings": [],
    }
    assert {field: trained[field] for field in expected} == expected
    assert trained["container"].startswith(f"trainer-{SPEC}-")
    assert set(trained["metrics"]) >= {"rmse", "mae", "r2", "compiled.max_difference"}
    assert 30 < trained["metrics"]["rmse"] < 80
    assert trained["parameters"]["n_estimators"] == "20"
    assert trained["parameters"]["max_depth"] == "6"
    assert trained["logs_tail"]


def test_the_status_tells_what_serves(yard: Yard, trained: Json) -> None:
    status = yard.get("/status")
    upstream = yard.traffic()["active"]
    expected = {
        "active": trained["active"],
        "url": f"http://{upstream['address']}",
        "public_url": yard.public_url,
        "healthy": True,
        "model_name": MODEL,
        "model_uri": trained["model_uri"],
        "model_version": trained["version"],
        "model_alias": "deployed",
        "server_id": upstream["server_id"],
        "serve_image": SOURCE,
    }
    assert {field: status[field] for field in expected} == expected
    assert isinstance(status["ts"], float)
    assert yard.alias(MODEL) == trained["version"]


def test_mlflow_knows_where_the_version_comes_from(yard: Yard, trained: Json) -> None:
    status, tags = read_run(yard, trained["run_id"])
    assert status == "FINISHED"
    lineage = {
        "trainer": SPEC,
        "container": trained["container"],
        "image": SOURCE,
        "serve_image": SOURCE,
        "training_id": trained["id"],
        "outcome": "succeeded",
        "parameters": json.dumps({"MAX_DEPTH": "6", "N_ESTIMATORS": "20"}),
    }
    assert {name: tags[f"switchyard.{name}"] for name in lineage} == lineage
    assert tags["switchyard.image_digest"].startswith("sha256:")
    version = read_versions(yard, MODEL)[trained["version"]]
    assert version["run_id"] == trained["run_id"]
    tagged = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert tagged["switchyard.training_id"] == trained["id"]
    assert tagged["switchyard.serve_image"] == SOURCE


def test_the_run_names_its_experiment_and_the_data_it_was_trained_on(yard: Yard, trained: Json) -> None:
    api = f"{yard.mlflow_url}/api/2.0/mlflow"
    run = httpx.get(f"{api}/runs/get", params={"run_id": trained["run_id"]}).json()["run"]
    experiment = {"experiment_id": run["info"]["experiment_id"]}
    named = httpx.get(f"{api}/experiments/get", params=experiment).json()["experiment"]["name"]
    assert named == "diabetes_rf_demo"
    datasets = run["inputs"]["dataset_inputs"]
    assert datasets
    for entry in datasets:
        assert "diabetes" in entry["dataset"]["name"]
        assert entry["dataset"]["digest"]
        assert "bmi" in entry["dataset"]["schema"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", {"dataframe_split": {"columns": COLUMNS, "data": [ROW, ROW]}}),
        ("json", {"dataframe_records": [dict(zip(COLUMNS, ROW, strict=True))] * 2}),
        ("json", {"inputs": {name: [value, value] for name, value in zip(COLUMNS, ROW, strict=True)}}),
        ("csv", "\n".join([",".join(COLUMNS), *[",".join(map(str, ROW))] * 2])),
    ],
    ids=["dataframe_split", "dataframe_records", "inputs", "csv"],
)
def test_the_public_port_predicts_in_mlflows_formats(
    yard: Yard, trained: Json, kind: str, content: Any
) -> None:
    headers = {"Content-Type": "application/json" if kind == "json" else "text/csv"}
    body = json.dumps(content) if kind == "json" else content
    answer = httpx.post(f"{yard.public_url}/invocations", content=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["predictions"]
    first, second = answer.json()["predictions"]
    assert first == second
    assert 25 <= first <= 346  # what there is in the data
    assert answer.headers["X-Served-By"] == yard.traffic()["active"]["address"]


def test_what_cannot_be_predicted_on_is_400_in_mlflows_shape(yard: Yard, trained: Json) -> None:
    answer = yard.predict({"dataframe_split": {"columns": ["age"], "data": [["old"]]}})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "BAD_REQUEST"


def test_a_second_version_takes_over_and_a_rollback_returns_to_the_first(yard: Yard, trained: Json) -> None:
    body = {"parameters": {"N_ESTIMATORS": 5, "MAX_DEPTH": None}}
    second = yard.post(f"/admin/train_then_roll/{SPEC}", body)
    assert second["version"] == trained["version"] + 1
    assert second["parameters"]["n_estimators"] == "5"
    assert yard.get("/status")["model_version"] == second["version"]
    wait_for_end(yard, second["rollout_id"])
    back = yard.post("/admin/rollback")
    assert {field: back[field] for field in ("active", "version", "alias", "model_uri", "public_url")} == {
        "active": trained["active"],  # the very server, still warm
        "version": trained["version"],
        "alias": "deployed",
        "model_uri": trained["model_uri"],
        "public_url": yard.public_url,
    }
    assert back["url"].startswith("http://127.0.0.1:")
    wait_for_end(yard, back["id"])
    again = yard.post("/admin/roll", {"name": MODEL, "ref": "@deployed"})
    assert again["version"] == trained["version"]
    assert again["warnings"] == ["this version is active already: nothing was done"]
