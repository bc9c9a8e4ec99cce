"""The native model of a scikit-learn flavour, asked with a frame that is made at once from a plain request.

MLflow takes longer to parse and check a row of numbers than most models take to answer it. For columns
that are all doubles, what comes out is known beforehand: the same frame. An error in it is told by MLflow's
own way.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from modelkit.manifest import Column
from modelkit.serve.answers import PredictLean
from modelkit.serve.batching import Batcher
from modelkit.serve.lean import LeanProtocol

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_FLAVOUR = "mlflow.sklearn"


class FrameModel:
    def __init__(self, model: Any, predict_fn: str, names: list[str], *, together: bool) -> None:
        """`together`: requests that come while it is at work are answered by its next turn."""
        self._predict = getattr(model, predict_fn)
        self._names = names
        self._answer = Batcher(self._ask).answer if together else self._ask

    def answer_matrix(self, rows: Any) -> list[Any] | None:
        return self._answer(np.array(rows, np.float64))

    def answer_columns(self, columns: Sequence[Sequence[Any]]) -> list[Any] | None:
        return self._answer(np.array(columns, np.float64).T)

    def _ask(self, matrix: Any) -> list[Any] | None:
        try:
            found = self._predict(pd.DataFrame(matrix, columns=self._names))
        except Exception:  # noqa: BLE001 - whatever it is, MLflow's own way meets it again and tells it
            return None
        if isinstance(found, list):
            found = np.asarray(found)
        if not isinstance(found, np.ndarray) or (found.dtype.kind == "f" and not np.isfinite(found).all()):
            return None
        answer: list[Any] = found.tolist()
        return answer


def make_lean_native(model: "PyFuncModel", *, together: bool) -> PredictLean | None:
    """None where only MLflow's own way understands the requests."""
    from mlflow.types import DataType

    schema = model.metadata.get_input_schema()
    flavour = model.metadata.flavors["python_function"]
    if flavour.get("loader_module") != _FLAVOUR or schema is None or not schema.has_input_names():
        return None
    if any(spec.type != DataType.double for spec in schema.inputs):
        return None
    columns = tuple(Column(spec.name, "double") for spec in schema.inputs)
    frames = FrameModel(
        model.get_raw_model(),
        flavour.get("predict_fn", "predict"),
        [column.name for column in columns],
        together=together,
    )
    return LeanProtocol(frames, columns, "float64").answer
