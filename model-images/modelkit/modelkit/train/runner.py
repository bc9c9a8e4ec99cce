"""One training from start to end, so that a new model needs no more than one short `train.py`."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import mlflow
from sklearn.base import is_classifier

from modelkit.settings import RunSettings, SettingsError, TrainingSettings, read_settings
from modelkit.train.datasets import Dataset, load_dataset, split_dataset
from modelkit.train.errors import TrainingError
from modelkit.train.held_out import write_held_out
from modelkit.train.scoring import score_classifier, score_regressor
from modelkit.train.tracking import log_lineage, open_run, publish_model, silence_known_warnings

log = logging.getLogger("modelkit.train")

Chosen = TypeVar("Chosen", bound=TrainingSettings)


@dataclass(frozen=True)
class Recipe(Generic[Chosen]):
    """What a trainer brings of its own."""

    settings: type[Chosen]
    build: Callable[[Chosen], Any]
    built_in: Callable[[], Dataset]
    experiment: str
    model_name: str
    extra_requirements: Sequence[str] = ()
    predict_fn: str = "predict"


def run_training(
    *,
    settings: type[Chosen],
    build: Callable[[Chosen], Any],
    built_in: Callable[[], Dataset],
    experiment: str,
    model_name: str,
    extra_requirements: Sequence[str] = (),
    predict_fn: Literal["predict", "predict_proba"] = "predict",
) -> None:
    """Trains, scores, logs and registers one model, and ends the process with 1 if any of it fails.

    `build` makes an unfitted scikit-learn estimator (a pipeline is one). `experiment` and `model_name` stand
    where `MLFLOW_EXPERIMENT` and `REGISTERED_MODEL_NAME` say nothing. `extra_requirements` are installed
    packages, beside scikit-learn, that the fitted model needs to be loaded. `predict_fn` is what /invocations
    answers with.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    silence_known_warnings()
    recipe = Recipe(settings, build, built_in, experiment, model_name, tuple(extra_requirements), predict_fn)
    try:
        _train(recipe)
    except (SettingsError, TrainingError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is written for the user; a traceback would bury it
        sys.exit(1)


def _train(recipe: Recipe[Chosen]) -> None:
    run_settings = read_settings(RunSettings, os.environ)
    settings = read_settings(recipe.settings, os.environ)
    with open_run(run_settings, recipe.experiment) as run:
        log.info("run %s in experiment %s", run.info.run_id, run.info.experiment_id)
        mlflow.log_params(settings.model_dump(mode="json"))
        dataset = load_dataset(settings, recipe.built_in)
        model = recipe.build(settings)
        classifies = is_classifier(model)
        split = split_dataset(dataset, settings, stratify=classifies)
        log_lineage(dataset, split)
        model.fit(split.train_features, split.train_target)
        score = score_classifier if classifies else score_regressor
        metrics = score(model, split.test_features, split.test_target)
        mlflow.log_metrics(metrics)
        name = run_settings.registered_model_name or recipe.model_name
        held_out = write_held_out(split, settings.held_out_rows)
        published = publish_model(model, split, name, recipe.extra_requirements, recipe.predict_fn, held_out)
        shown = ", ".join(f"{key}={value:.4g}" for key, value in metrics.items())
        log.info("registered %s version %s: %s", name, published.version, shown)
