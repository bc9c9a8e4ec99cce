"""Compiles boosters of each make, and tells as a line of JSON how each was found."""

import json
import sys

import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from mlflow.models import infer_signature
from sklearn.datasets import load_diabetes
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from modelkit.train.compiling import compile_model
from modelkit.train.proving import Proof

HELD_OUT = 90

features, target = load_diabetes(as_frame=True, return_X_y=True)
classes = pd.cut(target, 3, labels=False).astype("int64")
MODELS = {
    "xgboost": (XGBRegressor(n_estimators=20), target, "predict"),
    "xgboost classes": (XGBClassifier(n_estimators=20), classes, "predict"),
    "xgboost chances": (XGBClassifier(n_estimators=20), classes, "predict_proba"),
    "lightgbm": (LGBMRegressor(n_estimators=20, verbose=-1), target, "predict"),
    "lightgbm classes": (LGBMClassifier(n_estimators=20, verbose=-1), classes, "predict"),
    "lightgbm chances": (LGBMClassifier(n_estimators=20, verbose=-1), classes, "predict_proba"),
    "lightgbm in a pipeline": (
        make_pipeline(StandardScaler(), LGBMRegressor(n_estimators=20, verbose=-1)),
        target,
        "predict",
    ),
}

found = {}
for name, (model, labels, predict_fn) in MODELS.items():
    model.fit(features[HELD_OUT:], labels[HELD_OUT:])
    predict = getattr(model, predict_fn)
    schema = infer_signature(features[:3], predict(features[:3])).inputs
    compiled = compile_model(
        model, schema, Proof(predict, predict_fn, features[:HELD_OUT], features[HELD_OUT:])
    )
    found[name] = {
        "difference": compiled.manifest.difference,
        "missing": all(column.missing for column in compiled.manifest.columns),
    }
sys.stdout.write(json.dumps(found) + "\n")
