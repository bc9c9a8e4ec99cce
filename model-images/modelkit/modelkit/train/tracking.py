"""What a training leaves in MLflow: its run, the data it saw, and a model that can be served as it is."""

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import mlflow.sklearn
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature

from modelkit.settings import RunSettings
from modelkit.train.datasets import Dataset, Split
from modelkit.train.errors import TrackingError
from modelkit.train.held_out import HELD_OUT_FILE
from modelkit.train.proving import Proof
from modelkit.train.publishing import add_compiled_form

_EXAMPLE_ROWS = 3
# What the logged model needs to be loaded again, given outright: letting MLflow find out takes it a second
# process that imports the model, several seconds long.
_BASE_REQUIREMENTS = ("cloudpickle", "numpy", "pandas", "scikit-learn")


def open_run(settings: RunSettings, default_experiment: str) -> mlflow.ActiveRun:
    """The pre-created run if there is one, else a new run; a context manager that ends it."""
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    try:
        if settings.mlflow_run_id is not None:
            # It belongs to an experiment already; were another one selected, MLflow would refuse the run.
            return mlflow.start_run(run_id=settings.mlflow_run_id)
        mlflow.set_experiment(settings.mlflow_experiment or default_experiment)
        return mlflow.start_run()
    except MlflowException as error:
        what = f"run {settings.mlflow_run_id}" if settings.mlflow_run_id else "a new run"
        raise TrackingError(f"MLflow at {settings.mlflow_tracking_uri} refused {what}: {error}") from error


def log_lineage(dataset: Dataset, split: Split) -> None:
    """Records both parts of the data, each with a digest of its content."""
    # Without a source MLflow names the code that made the data: train.py and its commit.
    origin = {} if dataset.source is None else {"source": str(dataset.source)}
    for frame, context in ((split.train, "training"), (split.test, "testing")):
        table = from_pandas(frame, targets=split.target, name=dataset.name, **origin)
        mlflow.log_input(table, context=context)


def publish_model(
    model: Any,
    split: Split,
    name: str,
    extra_requirements: Sequence[str],
    predict_fn: str,
    held_out: str | None,
) -> ModelVersion:
    """Logs the model with held-out rows, compiled form and digests; registers the next version of `name`."""
    example = split.test_features.head(_EXAMPLE_ROWS)
    needed = (*_BASE_REQUIREMENTS, *extra_requirements)
    signature = infer_signature(example, getattr(model, predict_fn)(example))
    logged = mlflow.sklearn.log_model(
        model,
        name="model",
        signature=signature,
        # Written also as a ready body for /invocations, which whoever rolls the model out probes it with.
        input_example=example,
        # skops, the default, refuses a forest unless its types are trusted by name, and cannot hold a class
        # that train.py defines; its list of trusted types is read from the model, so it protects no server.
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        pip_requirements=[f"{package}=={version(package)}" for package in needed],
        pyfunc_predict_fn=predict_fn,
    )
    if held_out is not None:
        _add_file(logged.model_id, HELD_OUT_FILE, held_out)
    proof = Proof(getattr(model, predict_fn), predict_fn, split.test_features, split.train_features)
    add_compiled_form(logged, model, proof, split.class_names)
    # Last, so that whoever finds the version finds all of its files.
    registered: ModelVersion = mlflow.register_model(logged.model_uri, name)
    return registered


def _add_file(model_id: str, path: PurePosixPath, text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_text(text)
        MlflowClient().log_model_artifact(model_id, str(file), str(path.parent))


def silence_known_warnings() -> None:
    """Drops two warnings that every training would print, both about choices that were made here."""
    logging.getLogger("mlflow.sklearn").addFilter(_drop("requires exercising caution"))
    logging.getLogger("mlflow.utils.environment").addFilter(_drop("Failed to resolve installed pip version"))


def _drop(message: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: message not in record.getMessage()
