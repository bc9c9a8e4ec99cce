"""Computes scikit-learn's metrics: one JSON document on standard input, one on standard output.

A process of its own, so that the router never loads scikit-learn, and so that what a model answered can hold
up or bring down nothing but this. Run as a file in isolated mode: it imports nothing of ours.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any

from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)


def score_f1(truth: list[int], predictions: list[int]) -> float:
    """Each class counts alike, as in what `modelkit` logs."""
    return float(f1_score(truth, predictions, average="macro", zero_division=0.0))


OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}
OF_CLASSES: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_score,
    "f1": score_f1,
    "balanced_accuracy": balanced_accuracy_score,
}


def name_class(value: Any) -> str:
    """One name, whether a server writes 1, 1.0 or true."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value)


def number_classes(*labels: list[Any]) -> list[list[int]]:
    """Names could be of any length and of any characters, and arrays of them as large."""
    numbers: dict[str, int] = {}
    return [[numbers.setdefault(name_class(each), len(numbers)) for each in part] for part in labels]


def score(metric: str, truth: list[Any], predictions: list[Any]) -> float | None:
    """None: it is not a finite number, as when squares overflow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overflows and of classes never predicted: the score says it
        if metric in OF_NUMBERS:
            value = OF_NUMBERS[metric]([*map(float, truth)], [*map(float, predictions)])
        else:
            value = OF_CLASSES[metric](*number_classes(truth, predictions))
    return float(value) if math.isfinite(value) else None


def main() -> None:
    asked = json.load(sys.stdin)
    scores = {
        who: {metric: score(metric, asked["truth"], predictions) for metric in asked["metrics"]}
        for who, predictions in asked["predictions"].items()
    }
    json.dump(scores, sys.stdout, allow_nan=False)


if __name__ == "__main__":
    main()
