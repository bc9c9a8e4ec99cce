"""A compiled model at work: columns in, the native model's answer out, as far as it was proven.

The trainer's proof and the server run this same code, so that what is proven is what is served.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from modelkit.manifest import Column, Manifest

_NUMBERS = {"double", "float", "integer", "long", "boolean"}


class CompiledModel:
    """None for an answer means: the rows are outside of what was proven, so ask the native model."""

    def __init__(self, graph: bytes, manifest: Manifest) -> None:
        options = onnxruntime.SessionOptions()
        # Requests run beside each other; threads inside one would wait for those of another.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, too; the rest concerns who exported the graph
        self.manifest = manifest
        self._run = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"]).run
        self._outputs = [manifest.output]
        self._dtype = np.dtype(manifest.precision)
        self._takes_missing = all(column.missing for column in manifest.columns)
        self._unproven_missing = np.array([not column.missing for column in manifest.columns])
        self._known = [frozenset(column.known) for column in manifest.columns]

    def answer_matrix(self, rows: Any) -> list[Any] | None:
        """`rows`: numbers only, in the order of the manifest's columns; None stands for a missing value."""
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, which is looked for
            matrix = np.array(rows, self._dtype)
        if not np.isfinite(matrix).all() and not self._are_proven(matrix):
            return None
        if self.manifest.matrix:
            return self._answer({"X": matrix})
        names = [column.name for column in self.manifest.columns]
        return self._answer({name: matrix[:, [place]] for place, name in enumerate(names)})

    def answer_columns(self, columns: Sequence[Sequence[Any]]) -> list[Any] | None:
        """One sequence of values per column of the manifest, of its type."""
        feeds = {}
        for place, (column, values) in enumerate(zip(self.manifest.columns, columns, strict=True)):
            if column.type in _NUMBERS:
                with np.errstate(over="ignore"):
                    array = np.array(values, self._dtype).reshape(-1, 1)
                if np.isinf(array).any() or (np.isnan(array).any() and not column.missing):
                    return None
            else:
                if not column.unknown and not self._known[place].issuperset(values):
                    return None
                array = np.array(values, object).reshape(-1, 1)
            feeds[column.name] = array
        if self.manifest.matrix:
            return self._answer({"X": np.hstack(list(feeds.values()))})
        return self._answer(feeds)

    def _are_proven(self, matrix: Any) -> bool:
        if np.isinf(matrix).any():
            return False
        return self._takes_missing or not np.isnan(matrix)[:, self._unproven_missing].any()

    def _answer(self, feeds: dict[str, Any]) -> list[Any] | None:
        found = self._run(self._outputs, feeds)[0]
        if self.manifest.flat and found.ndim > 1:
            found = found.reshape(-1)
        if self.manifest.answer == "number":
            if not np.isfinite(found).all():
                return None
        elif self.manifest.answer == "boolean":
            found = found.astype(bool)
        answer: list[Any] = found.tolist()
        return answer


def is_number(column: Column) -> bool:
    return column.type in _NUMBERS
