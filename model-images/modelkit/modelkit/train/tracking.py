"""What a training leaves in MLflow: its run, the data it saw, and a model that can be served as it is."""

import logging
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import mlflow
import mlflow.data
import mlflow.sklearn
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.models.model import ModelInfo

from modelkit.settings import RunSettings
from modelkit.train.datasets import Dataset, Split
from modelkit.train.errors import TrackingError

_EXAMPLE_ROWS = 3
# What the logged model needs to be loaded again, given outright: letting MLflow find out takes it a second
# process that imports the model, several seconds long.
_BASE_REQUIREMENTS = ("cloudpickle", "numpy", "pandas", "scikit-learn")


def open_run(settings: RunSettings, default_experiment: str) -> mlflow.ActiveRun:
    """The pre-created run if there is one, else a new run; a context manager that ends it."""
    mlflow.set_tracking_uri(settings.mlflow_tracking_uri)
    try:
        if settings.mlflow_run_id is not None:
            # The run already belongs to an experiment; selecting another one would make MLflow refuse the run.
            return mlflow.start_run(run_id=settings.mlflow_run_id)
        mlflow.set_experiment(settings.mlflow_experiment or default_experiment)
        return mlflow.start_run()
    except MlflowException as error:
        what = f"run {settings.mlflow_run_id}" if settings.mlflow_run_id else "a new run"
        raise TrackingError(f"MLflow at {settings.mlflow_tracking_uri} refused {what}: {error}") from error


def log_lineage(dataset: Dataset, split: Split) -> None:
    """Records both parts of the data, each with a digest of its content."""
    source = None if dataset.source is None else str(dataset.source)
    for frame, context in ((split.train, "training"), (split.test, "testing")):
        table = mlflow.data.from_pandas(frame, source=source, name=dataset.name, targets=split.target)
        mlflow.log_input(table, context=context)


def publish_model(model: Any, split: Split, name: str, extra_requirements: Sequence[str]) -> ModelInfo:
    """Logs the model and registers it as the next version of `name`."""
    example = split.test_features.head(_EXAMPLE_ROWS)
    return mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(example, model.predict(example)),
        # Written also as a ready body for /invocations, which whoever rolls the model out probes it with.
        input_example=example,
        # skops, the default, refuses a forest unless its types are trusted by name, and cannot hold a class
        # that train.py defines; its list of trusted types is read from the model, so it protects no server.
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_CLOUDPICKLE,
        pip_requirements=[
            f"{package}=={version(package)}" for package in (*_BASE_REQUIREMENTS, *extra_requirements)
        ],
        registered_model_name=name,
    )


def silence_known_warnings() -> None:
    """Drops two warnings that every training would print, both about choices that were made here."""
    for logger, message in (
        ("mlflow.sklearn", "requires exercising caution"),
        ("mlflow.utils.environment", "Failed to resolve installed pip version"),
    ):
        logging.getLogger(logger).addFilter(lambda record, known=message: known not in record.getMessage())
