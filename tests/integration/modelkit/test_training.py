"""The reference trainer, run as a runtime runs it and as a person does."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from httpx import HTTPStatusError

from tests.integration.modelkit.conftest import Train
from tests.integration.modelkit.tracking import Tracking, TrainedVersion
from tests.services.mlflow_server import run_mlflow_server

COMPILED = ["compiled.native_bytes", "compiled.bytes", "compiled.max_difference", "compiled.tolerance"]


def values(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["key"]: entry["value"] for entry in entries}


def write_table(path: Path, rows: int = 40) -> Path:
    """Integer features and an integer target, `rows` of them."""
    lines = [f"{i},{i % 7},{3 * i + i % 7}" for i in range(rows)]
    path.write_text("\n".join(["size,kind,price", *lines]) + "\n")
    return path


def test_a_training_fills_the_run_it_was_given(trained: TrainedVersion, tracking: Tracking) -> None:
    run = tracking.run(trained.run_id)
    assert run["info"]["status"] == "FINISHED"
    metrics = values(run["data"]["metrics"])
    assert metrics.keys() == {"rmse", "mae", "r2", *COMPILED}
    assert 40 < metrics["rmse"] < 80
    assert metrics["mae"] < metrics["rmse"]
    assert 0.2 < metrics["r2"] < 1
    assert values(run["data"]["params"]) == {
        "n_estimators": "20",
        "max_depth": "5",
        "test_size": "0.2",
        "random_state": "42",
        "held_out_rows": "1000",
        "dataset_path": "None",
        "target_column": "target",
    }


def test_a_training_makes_no_run_beside_the_one_it_was_given(
    trained: TrainedVersion, tracking: Tracking
) -> None:
    assert [run["info"]["run_id"] for run in tracking.runs("spine")] == [trained.run_id]


def test_a_training_records_both_parts_of_its_data(trained: TrainedVersion, tracking: Tracking) -> None:
    inputs = tracking.run(trained.run_id)["inputs"]["dataset_inputs"]
    seen = {values(given["tags"])["mlflow.data.context"]: given["dataset"] for given in inputs}
    assert seen.keys() == {"training", "testing"}
    assert {dataset["name"] for dataset in seen.values()} == {"diabetes"}
    assert seen["training"]["digest"] != seen["testing"]["digest"]
    assert json.loads(seen["training"]["profile"])["num_rows"] == 353
    assert json.loads(seen["testing"]["profile"])["num_rows"] == 89


def test_the_version_belongs_to_the_run_and_has_the_name_asked_for(trained: TrainedVersion) -> None:
    assert (trained.name, trained.version) == ("Shared", "1")


def test_the_model_has_a_signature_and_a_ready_body_to_probe_it_with(
    trained: TrainedVersion, tracking: Tracking
) -> None:
    description = tracking.model_file(trained, "MLmodel")
    assert '"type": "double", "name": "bmi", "required": true' in description.replace("\n    ", " ")
    body = json.loads(tracking.model_file(trained, "serving_input_example.json"))
    assert len(body["dataframe_split"]["columns"]) == 10
    assert len(body["dataframe_split"]["data"]) == 3


def test_the_rows_it_has_not_learned_from_are_kept_with_the_model(
    trained: TrainedVersion, tracking: Tracking
) -> None:
    kept = json.loads(tracking.model_file(trained, "evaluation/held_out.json"))
    assert kept["target"] == "target"
    assert len(kept["columns"]) == 11
    assert len(kept["data"]) == 89
    assert all(isinstance(value, float) for row in kept["data"] for value in row)


def test_no_more_rows_are_kept_than_a_server_should_have_to_download(
    train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    table, columns = tmp_path / "wide.csv", 100
    lines = [
        ",".join(str((row * 7919 + column) / 104_729) for column in range(columns)) for row in range(5000)
    ]
    table.write_text("\n".join([",".join(f"c{column}" for column in range(columns)), *lines]))
    run_id = tracking.create_run("wide")
    small = {"N_ESTIMATORS": "1", "MAX_DEPTH": "1", "REGISTERED_MODEL_NAME": "Wide"}
    process = train(DATASET_PATH=str(table), TARGET_COLUMN="c0", MLFLOW_RUN_ID=run_id, **small)
    assert process.returncode == 0, process.stderr
    text = tracking.model_file(tracking.version_of_run(run_id), "evaluation/held_out.json")
    assert 2**19 < len(text) <= 2**20
    assert len(json.loads(text)["data"]) < 1000


def test_no_rows_are_kept_where_none_may_be(train: Train, tracking: Tracking) -> None:
    run_id = tracking.create_run("discreet")
    process = train(
        MLFLOW_RUN_ID=run_id, N_ESTIMATORS="2", HELD_OUT_ROWS="0", REGISTERED_MODEL_NAME="Discreet"
    )
    assert process.returncode == 0, process.stderr
    with pytest.raises(HTTPStatusError):
        tracking.model_file(tracking.version_of_run(run_id), "evaluation/held_out.json")


def test_the_compiled_form_is_proven_and_the_run_says_how_well(
    trained: TrainedVersion, tracking: Tracking
) -> None:
    run = tracking.run(trained.run_id)
    metrics = values(run["data"]["metrics"])
    assert values(run["data"]["tags"])["modelkit.compiled"] == "proven"
    assert 0 < metrics["compiled.max_difference"] <= metrics["compiled.tolerance"] == 1e-5
    manifest = json.loads(tracking.model_file(trained, "compiled/manifest.json"))
    assert manifest["difference"] == metrics["compiled.max_difference"]
    assert manifest["rows"] == 89 + 256
    assert [column["name"] for column in manifest["columns"]][:3] == ["age", "sex", "bmi"]


def test_every_file_of_the_model_has_its_digest_beside_it(
    trained: TrainedVersion, tracking: Tracking
) -> None:
    digests = json.loads(tracking.model_file(trained, "digests.json"))["files"]
    assert {"MLmodel", "model.pkl", "compiled/model.onnx", "compiled/manifest.json"} <= digests.keys()
    example = tracking.model_file(trained, "serving_input_example.json").encode()
    assert digests["serving_input_example.json"] == {
        "sha256": hashlib.sha256(example).hexdigest(),
        "size": len(example),
    }


def test_the_model_says_what_it_needs_to_be_loaded(trained: TrainedVersion, tracking: Tracking) -> None:
    requirements = tracking.model_file(trained, "requirements.txt")
    assert {line.partition("==")[0] for line in requirements.split()} == {
        "mlflow",
        "cloudpickle",
        "numpy",
        "pandas",
        "scikit-learn",
    }


def test_run_by_hand_it_makes_a_run_and_an_experiment_of_its_own(train: Train, tmp_path: Path) -> None:
    with run_mlflow_server(tmp_path / "mlflow") as mlflow, Tracking(mlflow.url) as tracking:
        process = train(MLFLOW_TRACKING_URI=mlflow.url, N_ESTIMATORS="5")
        assert process.returncode == 0, process.stderr
        (run,) = tracking.runs("diabetes_rf_demo")
        assert run["info"]["status"] == "FINISHED"
        assert tracking.version_of_run(run["info"]["run_id"]).name == "DiabetesRF"


def test_a_table_of_ones_own_takes_the_place_of_the_built_in_one(
    train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "houses.csv")
    process = train(
        DATASET_PATH=str(table),
        TARGET_COLUMN="price",
        N_ESTIMATORS="5",
        MLFLOW_EXPERIMENT="houses",
        REGISTERED_MODEL_NAME="Houses",
    )
    assert process.returncode == 0, process.stderr
    (run,) = tracking.runs("houses")
    dataset = run["inputs"]["dataset_inputs"][0]["dataset"]
    assert dataset["name"] == "houses"
    assert str(table) in dataset["source"]
    version = tracking.version_of_run(run["info"]["run_id"])
    example = json.loads(tracking.model_file(version, "serving_input_example.json"))
    assert example["dataframe_split"]["columns"] == ["size", "kind"]
    # An integer column would refuse 1.0 and missing values.
    assert '"long"' not in tracking.model_file(version, "MLmodel").partition("outputs")[0]


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("N_ESTIMATORS", "many", "N_ESTIMATORS='many': input should be a valid integer"),
        ("MLFLOW_TRACKING_URI", "", "MLFLOW_TRACKING_URI is not set"),
    ],
)
def test_a_wrong_setting_ends_the_training_with_one_line_that_names_it(
    train: Train, variable: str, value: str, reason: str
) -> None:
    process = train(**{variable: value})
    assert process.returncode == 1
    assert reason in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"TARGET_COLUMN": "cost"},
            "TARGET_COLUMN=cost: no such column in houses, which has size",
        ),
        ({"DATASET_PATH": "gone.csv"}, "DATASET_PATH=gone.csv: cannot be read: .*No such file"),
        ({"DATASET_PATH": "houses.xlsx"}, "DATASET_PATH=houses.xlsx: not a CSV file"),
        ({"TEST_SIZE": "0.001"}, "TEST_SIZE=0.001: leaves 1 of 40 rows of houses to test on"),
    ],
)
def test_data_that_cannot_be_trained_on_ends_the_training_and_fails_its_run(
    train: Train, tracking: Tracking, tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    run_id = tracking.create_run("refused")
    table = write_table(tmp_path / "houses.csv")
    given = {"DATASET_PATH": str(table), "TARGET_COLUMN": "price", "MLFLOW_RUN_ID": run_id, **variables}
    process = train(**given)
    assert process.returncode == 1
    assert re.search(reason, process.stderr), process.stderr
    assert "Traceback" not in process.stderr
    assert tracking.run(run_id)["info"]["status"] == "FAILED"
    assert tracking.versions_of_run(run_id) == []


def test_a_run_that_does_not_exist_is_named(train: Train) -> None:
    process = train(MLFLOW_RUN_ID="0" * 32)
    assert process.returncode == 1
    assert f"refused run {'0' * 32}" in process.stderr
    assert "Traceback" not in process.stderr


# It has the names of all three classes for the rows of two.
MISNAMED = """
from modelkit.train import Dataset, TrainingSettings, run_training
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

frame = load_iris(as_frame=True).frame
run_training(
    settings=TrainingSettings,
    build=lambda settings: DecisionTreeClassifier(),
    built_in=lambda: Dataset("iris", frame[frame["target"] != 1], class_names=("setosa", "fan", "virginica")),
    experiment="misnamed",
    model_name="Misnamed",
)
"""


def test_classes_need_a_name_each_or_none(train: Train, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MISNAMED)
    process = train(source=tmp_path)
    assert process.returncode == 1
    assert "iris names 3 classes; its target has 2" in process.stderr
    assert "Traceback" not in process.stderr
