"""What BentoML's own guide makes of a scikit-learn model: one worker, adaptive batching, rows as an array."""

import os
from typing import Any

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1)
class Model:
    def __init__(self) -> None:
        self._model = joblib.load(os.environ["MODEL_FILE"])

    @bentoml.api(batchable=True, max_batch_size=1000, max_latency_ms=10_000)  # type: ignore[untyped-decorator]
    def predict(self, rows: np.ndarray) -> np.ndarray:
        answer: Any = self._model.predict(rows)
        return np.asarray(answer)
