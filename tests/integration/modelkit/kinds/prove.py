"""Run by a model's own Python: compiles models of which something could be taken as proven that is not.

Ends with a line of JSON: for each the columns of its manifest and the rows compared, or why it is native.
"""

import json
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from msgspec import to_builtins
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder
from sklearn.tree import DecisionTreeRegressor

from modelkit.compiled import CompiledModel
from modelkit.train.compiling import NotCompiled, compile_model
from modelkit.train.proving import Proof, gains_by_batches

ROWS, HELD_OUT = 240, 60
chance = np.random.default_rng(7)
NUMBERS = pd.DataFrame({name: chance.normal(10, 4, ROWS).round(3) for name in ("width", "height", "depth")})
TARGET = NUMBERS["width"] * 2 - NUMBERS["height"] + 100
GAPS = NUMBERS.where(chance.random(NUMBERS.shape) > 0.1)
COLOURS = pd.Series(chance.choice(["red", "green", "blue"], ROWS), name="colour").astype(object)
EXTRA = ((COLOURS == "red") * 8).where(COLOURS.index != ROWS - 1, 50)
FADED = COLOURS.where(chance.random(ROWS) > 0.1, None)
WORDED = NUMBERS.assign(colour=COLOURS)


def with_words(encoder: Any, columns: Any) -> Any:
    table = make_column_transformer((encoder, columns), remainder="passthrough")
    return make_pipeline(table, LinearRegression())


def one_hot() -> Any:
    return with_words(OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["colour"])


def ordinal() -> Any:
    known = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(make_column_transformer((known, ["colour"])), DecisionTreeRegressor())


def counting() -> Any:
    return with_words(CountVectorizer(lowercase=False), "colour")


# what may go wrong -> model, features
MODELS: dict[str, tuple[Callable[[], Any], pd.DataFrame]] = {
    "numbers": (LinearRegression, NUMBERS),
    "gaps": (lambda: make_pipeline(SimpleImputer(), LinearRegression()), GAPS),
    "gaps that are answered alone only": (lambda: make_pipeline(KNNImputer(), LinearRegression()), GAPS),
    "words": (one_hot, WORDED),
    "a gap among the words": (one_hot, NUMBERS.assign(colour=FADED)),
    "a gap among the numbered words": (ordinal, NUMBERS.assign(colour=FADED)),
    "words within words": (counting, WORDED),
    "a known word that no held-out row has": (
        counting,
        WORDED.assign(colour=COLOURS.where(COLOURS.index != ROWS - 1, "éred")),
    ),
    "few complete rows": (
        lambda: make_pipeline(SimpleImputer(), LinearRegression()),
        NUMBERS.assign(width=NUMBERS["width"].where(NUMBERS.index % 6 == 0)),
    ),
    "few different rows": (one_hot, WORDED.iloc[np.arange(ROWS) % 19].reset_index(drop=True)),
    "switches": (LinearRegression, NUMBERS.assign(painted=COLOURS == "red")),
    "cells that are lists": (LinearRegression, NUMBERS.assign(both=[[1.0, 2.0]] * ROWS)),
}


def compile_one(
    model: Any, features: pd.DataFrame, predict: Callable[[Any], Any] | None = None, **limits: Any
) -> dict[str, Any]:
    proof = Proof(predict or model.predict, "predict", features[:HELD_OUT], features[HELD_OUT:])
    schema = infer_signature(features.dropna().head(3)).inputs
    try:
        manifest = compile_model(model, schema, proof, **limits).manifest
    except NotCompiled as error:
        return {"reason": str(error)}
    columns = {column.name: to_builtins(column) for column in manifest.columns}
    return {"columns": columns, "rows": manifest.rows, "precision": manifest.precision}


def fail(_rows: pd.DataFrame) -> Any:
    raise LookupError("in its own way")


def centre(answer: Callable[..., Any]) -> Callable[..., Any]:
    """Its answers less their mean: a row's depends on the rows beside it."""

    def answer_centred(*asked: Any) -> list[float]:
        found = np.asarray(answer(*asked))
        return list(found - found.mean())

    return answer_centred


def main() -> None:
    found: dict[str, Any] = {}
    for what, (make, features) in MODELS.items():
        model = make()
        if "both" not in features:
            model.fit(features[HELD_OUT:], (TARGET + EXTRA)[HELD_OUT:])
        found[what] = compile_one(model, features)
    linear = LinearRegression().fit(NUMBERS, TARGET)
    found["a large model"] = compile_one(linear, NUMBERS, native_bytes=10**9)
    with patch.object(CompiledModel, "answer_matrix", lambda _self, rows: [0.0] * len(rows)):
        found["a matrix that is answered otherwise"] = compile_one(linear, NUMBERS)
    with (
        patch.object(CompiledModel, "answer_matrix", centre(CompiledModel.answer_matrix)),
        patch.object(CompiledModel, "answer_columns", centre(CompiledModel.answer_columns)),
    ):
        found["rows that count on one another"] = compile_one(linear, NUMBERS, centre(linear.predict))
    found["gains by a model that fails"] = gains_by_batches(Proof(fail, "predict", NUMBERS, NUMBERS))
    # Far from zero, float32 does not hold the difference that these two columns make.
    distant = NUMBERS + 1e6
    near = LinearRegression().fit(distant, TARGET)
    found["fine numbers"] = compile_one(near, distant)
    found["fine numbers, late"] = compile_one(near, distant, most_seconds=0.0)
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
