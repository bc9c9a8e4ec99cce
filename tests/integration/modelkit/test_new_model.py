"""A model of one's own: one short train.py with modelkit is trained, registered and served."""

import json
from pathlib import Path

import pytest

from tests.integration.modelkit.conftest import Serve, Train
from tests.integration.modelkit.tracking import Tracking

IRIS = '''
from modelkit.train import Dataset, TrainingSettings, run_training
from pydantic import Field
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


class Settings(TrainingSettings):
    penalty_strength: float = Field(default=1.0, gt=0)


def halve(features):
    """Of this file, so that the model carries code that no installed package has."""
    return features / 2


def load() -> Dataset:
    return Dataset("iris", load_iris(as_frame=True).frame)


def build(settings: Settings):
    model = LogisticRegression(C=1 / settings.penalty_strength)
    return make_pipeline(FunctionTransformer(halve), StandardScaler(), model)


if __name__ == "__main__":
    run_training(settings=Settings, build=build, built_in=load, experiment="iris", model_name="Iris")
'''


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(IRIS)
    return tmp_path


def test_a_classifier_is_judged_as_one_and_serves_its_classes(
    train: Train, serve: Serve, tracking: Tracking, iris: Path
) -> None:
    run_id = tracking.create_run("flowers")
    process = train(source=iris, MLFLOW_RUN_ID=run_id, PENALTY_STRENGTH="0.5")
    assert process.returncode == 0, process.stderr
    run = tracking.run(run_id)
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics.keys() == {"accuracy", "f1_macro", "compiled.native_bytes"}
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert "not convertible" in tags["modelkit.compiled"]
    assert metrics["accuracy"] > 0.8
    version = tracking.version_of_run(run_id)
    assert version.name == "Iris"
    body = {
        "dataframe_split": {
            "columns": ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"],
            "data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
        }
    }
    with serve(version.uri) as server:
        assert server.invoke(json.dumps(body).encode()).json() == {"predictions": [0, 2]}


def test_an_error_in_the_code_of_a_model_fails_its_run_and_shows_where(
    train: Train, tracking: Tracking, iris: Path
) -> None:
    (iris / "train.py").write_text(IRIS.replace("return features / 2", "return features / 'two'"))
    run_id = tracking.create_run("flowers")
    process = train(source=iris, MLFLOW_RUN_ID=run_id)
    assert process.returncode == 1
    assert "return features / 'two'" in process.stderr
    assert tracking.run(run_id)["info"]["status"] == "FAILED"
    assert tracking.versions_of_run(run_id) == []
