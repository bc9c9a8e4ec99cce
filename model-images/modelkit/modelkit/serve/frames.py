"""The native model of a scikit-learn flavour, asked with a frame that is made at once from a plain request.

MLflow takes longer to parse and check a row than most models take to answer it. For columns of doubles and
text, what comes out is known beforehand: the same frame. An error in it is told by MLflow's own way.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from modelkit.manifest import Column
from modelkit.serve.answers import CountRows, Lean
from modelkit.serve.batching import Batcher, Permits, hold
from modelkit.serve.lean import LeanProtocol

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_FLAVOUR = "mlflow.sklearn"

Columns = Sequence[Sequence[Any]]


class FrameModel:
    def __init__(
        self,
        ask: Callable[[Any], Any],
        columns: Sequence[Column],
        count_rows: CountRows,
        permits: Permits | None,
    ) -> None:
        """With `permits`, requests that come while it is at work are answered by its next turn."""
        self._predict, self._columns, self._count_rows = ask, columns, count_rows
        self._index = pd.Index([column.name for column in columns])
        self._answer_matrix: Callable[[Any], list[Any] | None] = self._ask_matrix
        self._answer_columns: Callable[[Columns], list[Any] | None] = self._ask_columns
        if permits is not None:
            self._predict = hold(permits, ask)
            self._answer_matrix = Batcher[Any](self._ask_matrix, np.vstack, len).answer
            self._answer_columns = Batcher[Columns](self._ask_columns, _join_columns, _count_rows).answer

    def answer_matrix(self, rows: Any) -> list[Any] | None:
        return self._answer_matrix(np.array(rows, np.float64))

    def answer_columns(self, columns: Columns) -> list[Any] | None:
        if any(column.type == "string" for column in self._columns):
            return self._answer_columns(columns)
        return self._answer_matrix(np.array(columns, np.float64).T)

    def _ask_matrix(self, matrix: Any) -> list[Any] | None:
        return self._ask(pd.DataFrame(matrix, columns=self._index))

    def _ask_columns(self, columns: Columns) -> list[Any] | None:
        given = zip(self._columns, columns, strict=True)
        return self._ask(
            pd.DataFrame(
                {
                    column.name: list(values) if column.type == "string" else np.array(values, np.float64)
                    for column, values in given
                }
            )
        )

    def _ask(self, frame: pd.DataFrame) -> list[Any] | None:
        self._count_rows(len(frame))
        try:
            found = self._predict(frame)
        except Exception:  # noqa: BLE001 - whatever it is, MLflow's own way meets it again and tells it
            return None
        if isinstance(found, np.ndarray) and found.dtype.kind != "O":
            is_told = found.dtype.kind in "biuU" or (found.dtype.kind == "f" and np.isfinite(found).all())
            return found.tolist() if is_told else None
        if isinstance(found, np.ndarray):
            found = found.tolist()
        return found if isinstance(found, list) and all(map(_is_plain, found)) else None


def make_lean_native(model: "PyFuncModel", count_rows: CountRows, permits: Permits | None) -> Lean | None:
    """None where only MLflow's own way understands the requests. `permits`: as for `FrameModel`."""
    from mlflow.types import DataType

    schema = model.metadata.get_input_schema()
    flavour = model.metadata.flavors["python_function"]
    if flavour.get("loader_module") != _FLAVOUR or schema is None or not schema.has_input_names():
        return None
    if any(spec.type not in (DataType.double, DataType.string) for spec in schema.inputs):
        return None
    columns = tuple(
        Column(spec.name, "double" if spec.type == DataType.double else "string") for spec in schema.inputs
    )
    ask = getattr(model.get_raw_model(), flavour.get("predict_fn", "predict"))
    frames = FrameModel(ask, columns, count_rows, permits)
    return LeanProtocol(frames, columns, "float64")


def _join_columns(tables: list[Columns]) -> Columns:
    return [list(chain.from_iterable(parts)) for parts in zip(*tables, strict=True)]


def _count_rows(columns: Columns) -> int:
    return len(columns[0])


def _is_plain(value: Any) -> bool:
    """Whether it is told as MLflow tells it."""
    return type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))
