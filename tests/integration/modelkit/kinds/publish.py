"""Run by a model's own Python: trains one small model of each kind and registers it under its name.

Ends with a line of JSON: for each kind what the trainer found of its compiled form.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from modelkit.settings import TrainingSettings
from modelkit.train.datasets import Dataset, split_dataset
from modelkit.train.tracking import publish_model, silence_known_warnings

ROWS = 240
NUMBERS = ["width", "height", "weight"]


def make_frame(table: str, target: str) -> pd.DataFrame:
    chance = np.random.default_rng(7)
    frame = pd.DataFrame({name: chance.normal(10, 4, ROWS).round(3) for name in NUMBERS})
    size = frame["width"] * 2 - frame["height"] + frame["weight"] ** 2 / 10
    if table == "switch":
        frame["painted"] = chance.random(ROWS) > 0.5
        size += frame["painted"] * 8
    if table in ("words", "words with gaps"):
        frame["colour"] = chance.choice(["red", "green", "blue"], ROWS)
        size += (frame["colour"] == "red") * 8
        frame.loc[chance.choice(ROWS, 30, replace=False), "weight"] = np.nan
        size = size.fillna(5)
    if table == "words with gaps":
        frame.loc[chance.choice(ROWS, 15, replace=False), "colour"] = None
    bins = pd.cut(size, 3, labels=False)
    targets = {
        "number": size,
        "class": bins.astype("int64"),
        "word": bins.map({0: "small", 1: "medium", 2: "large"}),
        "flag": size > size.median(),
    }
    return frame.assign(target=targets[target])


class Shouter(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Answers with a list of several kinds of values, as code of one's own may."""

    def fit(self, _features: pd.DataFrame, _target: pd.Series) -> "Shouter":
        self.is_fitted_ = True
        return self

    def predict(self, features: pd.DataFrame) -> list[Any]:
        return ["none" if width < 0 else 7 for width in features["width"]]


def mix(model: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (words, ["colour"])), model)


def mix_strictly(model: Any) -> Any:
    words = OneHotEncoder(sparse_output=False)
    return make_pipeline(make_column_transformer(("passthrough", NUMBERS[:2]), (words, ["colour"])), model)


def mix_by_own_code(model: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), FunctionTransformer(np.abs))
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (words, ["colour"])), model)


# kind -> how it is made, on which table, target, what it answers with
KINDS: dict[str, tuple[Callable[[], Any], str, str, str]] = {
    "forest": (lambda: RandomForestRegressor(20, random_state=0), "numbers", "number", "predict"),
    "forest-words": (lambda: RandomForestClassifier(15, random_state=0), "numbers", "word", "predict"),
    "forest-mixed": (lambda: mix(RandomForestRegressor(15, random_state=0)), "words", "number", "predict"),
    "extra-trees": (lambda: ExtraTreesRegressor(15, random_state=0), "numbers", "number", "predict"),
    "tree": (lambda: DecisionTreeClassifier(max_depth=4, random_state=0), "numbers", "class", "predict"),
    "boosting": (lambda: GradientBoostingRegressor(random_state=0), "numbers", "number", "predict"),
    "boosting-flag": (lambda: GradientBoostingClassifier(random_state=0), "numbers", "flag", "predict"),
    "ada": (lambda: AdaBoostClassifier(n_estimators=20, random_state=0), "numbers", "class", "predict"),
    "histogram": (lambda: HistGradientBoostingRegressor(random_state=0), "numbers", "number", "predict"),
    "linear": (lambda: LinearRegression(), "numbers", "number", "predict"),
    "polynomial": (lambda: make_pipeline(PolynomialFeatures(2), Ridge()), "numbers", "number", "predict"),
    "components": (lambda: make_pipeline(PCA(2), LinearRegression()), "numbers", "number", "predict"),
    "logistic": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        "numbers",
        "class",
        "predict",
    ),
    "logistic-mixed": (lambda: mix(LogisticRegression()), "words", "word", "predict"),
    "logistic-strict": (lambda: mix_strictly(LogisticRegression(max_iter=1000)), "words", "flag", "predict"),
    "chances": (lambda: mix(LogisticRegression()), "words", "word", "predict_proba"),
    "linear-gaps": (lambda: mix(LinearRegression()), "words with gaps", "number", "predict"),
    "forest-switch": (lambda: RandomForestClassifier(15, random_state=0), "switch", "word", "predict"),
    "bayes": (lambda: GaussianNB(), "numbers", "class", "predict"),
    "neighbours": (lambda: KNeighborsRegressor(), "numbers", "number", "predict"),
    "vectors": (lambda: make_pipeline(StandardScaler(), SVC()), "numbers", "word", "predict"),
    "neurons": (
        lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=2000, random_state=0)),
        "numbers",
        "class",
        "predict",
    ),
    "vote": (
        lambda: VotingClassifier([("a", LogisticRegression(max_iter=1000)), ("b", GaussianNB())]),
        "numbers",
        "class",
        "predict",
    ),
    "stack": (
        lambda: StackingRegressor([("a", Ridge()), ("b", LinearRegression())]),
        "numbers",
        "number",
        "predict",
    ),
    "own-forest": (
        lambda: make_pipeline(FunctionTransformer(np.abs), RandomForestRegressor(60, random_state=0)),
        "numbers",
        "number",
        "predict",
    ),
    "own-mixed": (
        lambda: mix_by_own_code(RandomForestClassifier(40, n_jobs=-1, random_state=0)),
        "words",
        "word",
        "predict",
    ),
    "own-values": (lambda: Shouter(), "numbers", "number", "predict"),
    "imputed": (
        lambda: make_pipeline(KNNImputer(), LinearRegression()),
        "numbers",
        "number",
        "predict",
    ),
    "own-code": (
        lambda: make_pipeline(FunctionTransformer(np.abs), LinearRegression()),
        "numbers",
        "number",
        "predict",
    ),
}


def main() -> None:
    silence_known_warnings()
    mlflow.set_experiment("kinds")
    settings = TrainingSettings()
    found = {}
    for kind, (make, table, target, predict_fn) in KINDS.items():
        dataset = Dataset(kind, make_frame(table, target))
        split = split_dataset(dataset, settings, stratify=False)
        model = make().fit(split.train_features, split.train_target)
        with mlflow.start_run() as run:
            publish_model(model, split, kind, (), predict_fn, None)
        found[kind] = mlflow.get_run(run.info.run_id).data.tags["modelkit.compiled"]
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
