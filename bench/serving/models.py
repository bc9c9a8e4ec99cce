"""Run by the model folder's own Python: trains what is served, and notes what each is asked and must answer.

The argument is a folder, which gets for each model `NAME/`, as MLflow keeps it, and `NAME.json`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelkit.settings import TrainingSettings
from modelkit.train.datasets import Dataset, split_dataset
from modelkit.train.tracking import publish_model, silence_known_warnings

ROWS = 1000  # of the large requests


class OwnForest(RandomForestRegressor):  # type: ignore[misc]
    """A class of one's own is not compiled, whatever it does; this does the same as the compiled one."""


class OwnLogistic(LogisticRegression):  # type: ignore[misc]
    """Likewise."""


class OwnFlavour(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """A flavour that only MLflow's own code can serve."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        # MLflow takes hints for a schema.
        return self._model.predict(model_input)


def make_pipe(kind: type[LogisticRegression]) -> Any:
    return make_pipeline(StandardScaler(), kind(max_iter=1000))


def publish(name: str, model: Any, frame: Any, folder: Path) -> None:
    split = split_dataset(Dataset(name, frame), TrainingSettings(), stratify=False)
    model.fit(split.train_features, split.train_target)
    with mlflow.start_run():
        if name == "pyfunc":
            signature = infer_signature(split.test_features, model.predict(split.test_features))
            mlflow.pyfunc.log_model(
                name="model",
                python_model=OwnFlavour(model),
                signature=signature,
                registered_model_name=name,
                pip_requirements=[],
            )
        else:
            publish_model(model, split, name, (), "predict", None)
    mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(folder / name))
    rows = split.test_features.sample(ROWS, replace=True, random_state=0)
    asked = {
        "columns": list(rows.columns),
        "rows": rows.to_numpy().tolist(),
        "predictions": model.predict(rows).tolist(),
    }
    (folder / f"{name}.json").write_text(json.dumps(asked))


def main() -> None:
    folder = Path(sys.argv[1])
    silence_known_warnings()
    mlflow.set_experiment("bench")
    diabetes, iris = load_diabetes(as_frame=True).frame, load_iris(as_frame=True).frame
    publish("forest", RandomForestRegressor(200, random_state=0), diabetes, folder)
    publish("logistic", make_pipe(LogisticRegression), iris, folder)
    publish("own_forest", OwnForest(200, random_state=0), diabetes, folder)
    publish("own_logistic", make_pipe(OwnLogistic), iris, folder)
    publish("pyfunc", make_pipe(LogisticRegression), iris, folder)


if __name__ == "__main__":
    main()
