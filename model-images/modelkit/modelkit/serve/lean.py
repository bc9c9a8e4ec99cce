"""/invocations without MLflow's parsing: what a request plainly says is answered by the model at once.

A request is answered here only where MLflow's coercions leave no doubt: named columns, plain cells of the
signature's types, every row complete. Anything else (text for numbers, CSV, parameters, what is wrong in any
way) is None here, and goes to MLflow's own code with the native model: so the two never part.
"""

import logging
import math
from array import array
from collections.abc import Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from modelkit.manifest import Column
from modelkit.serve.answers import CountRows

Number = float | None
Table = Sequence[Sequence[Number]]
Cell = bool | int | float | str | None

_EXACT = {"float32": 2**24, "float64": 2**53}  # integers up to here have a float each
_MOST = 2**1000  # beyond, an integer may have no float
_USUAL = 1e30  # beyond, a compiled model may have no finite answer
_BOUNDS = {"integer": 2**31, "long": 2**63}

# What msgspec raises for a body. ValueError: for text that is not UTF-8, and for integers of too many digits.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)

log = logging.getLogger("modelkit.serve")


class _NumberSplit(Struct, forbid_unknown_fields=True):
    columns: list[str]
    data: list[list[Number]]


class _NumberBody(Struct, forbid_unknown_fields=True):
    """The body of a model that has numbers only: decoded straight to floats, which is the fastest."""

    dataframe_split: _NumberSplit | UnsetType = UNSET
    dataframe_records: list[dict[str, Number]] | UnsetType = UNSET
    instances: list[dict[str, Number]] | UnsetType = UNSET
    inputs: dict[str, list[Number]] | UnsetType = UNSET
    params: dict[str, Any] | None = None


class _CellSplit(Struct, forbid_unknown_fields=True):
    columns: list[str]
    data: list[list[Cell]]


class _CellBody(Struct, forbid_unknown_fields=True):
    dataframe_split: _CellSplit | UnsetType = UNSET
    dataframe_records: list[dict[str, Cell]] | UnsetType = UNSET
    instances: list[dict[str, Cell]] | UnsetType = UNSET
    inputs: dict[str, list[Cell] | Cell] | list[dict[str, Cell]] | UnsetType = UNSET
    params: dict[str, Any] | None = None


class ColumnModel(Protocol):
    """Answers plain cells; None where it cannot, or must not."""

    def answer_matrix(self, rows: Any) -> list[Any] | None: ...

    def answer_columns(self, columns: Sequence[Sequence[Any]]) -> list[Any] | None: ...


class LeanProtocol:
    def __init__(
        self,
        model: ColumnModel,
        columns: Sequence[Column],
        precision: str,
        count_rows: CountRows | None = None,
    ) -> None:
        """`count_rows`: for a model that does not count for itself."""
        self._model, self._count_rows = model, count_rows
        self._columns = columns
        self._most_exact = _EXACT[precision]
        self._names = [column.name for column in self._columns]
        self._name_set = set(self._names)
        # MLflow rounds the cells of a `float` column, which a model of doubles would see.
        self._rounds = precision == "float64" and any(column.type == "float" for column in columns)
        numbers_only = all(column.type in ("double", "float") for column in self._columns)
        self._is_numeric = numbers_only and not self._rounds
        self._decode_numbers = msgspec.json.Decoder(_NumberBody).decode
        self._decode_cells = msgspec.json.Decoder(_CellBody).decode
        self._encode = msgspec.json.Encoder().encode

    def answer(self, body: bytes) -> bytes | None:
        """The answer to an `application/json` body, if it is one that is answered here."""
        try:
            predictions = self._predict_numbers(body) if self._is_numeric else self._predict_cells(body)
            if predictions is None:
                return None
            answer = self._encode({"predictions": predictions})
        except Exception as error:  # noqa: BLE001 - whatever it is, MLflow's own way meets it again and tells it
            log.warning("left to MLflow's own way: %s: %s", type(error).__name__, error)
            return None
        if self._count_rows is not None:
            self._count_rows(len(predictions))
        return answer

    def answer_together(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        """What `answer` says of each, by one run of the model for all that have numbers only."""
        if len(bodies) == 1 or not self._is_numeric:
            return [self.answer(body) for body in bodies]
        tables = [self._read_numbers(body) for body in bodies]
        told = self._tell_each(tables)
        if told is None:  # one of them spoils it for all
            usual = [None if table is None or _has_odd_cells(table) else table for table in tables]
            told = (None if usual == tables else self._tell_each(usual)) or [None] * len(bodies)
        return [answer or self.answer(body) for body, answer in zip(bodies, told, strict=True)]

    def _tell_each(self, tables: Sequence[Table | None]) -> list[bytes | None] | None:
        """Of each table its part of the predictions, None for one that was not read; or None for all."""
        together = [row for table in tables for row in table or ()]
        try:
            found = self._model.answer_matrix(together) if together else None
        except Exception as error:  # noqa: BLE001 - who asked for what it is meets it again, alone
            log.warning("requests are not answered together: %s: %s", type(error).__name__, error)
            return None
        if found is None or len(found) != len(together):
            return None
        if self._count_rows is not None:
            self._count_rows(len(together))
        rest = iter(found)
        return [
            None if table is None else self._encode({"predictions": list(islice(rest, len(table)))})
            for table in tables
        ]

    def _read_numbers(self, body: bytes) -> Table | None:
        try:
            return self._read_rows(self._decode_numbers(body))
        except UNREADABLE:
            return None

    def _predict_numbers(self, body: bytes) -> list[Any] | None:
        try:
            request = self._decode_numbers(body)
        except UNREADABLE:
            return self._predict_cells(body)
        rows = self._read_rows(request)
        return None if rows is None else self._model.answer_matrix(rows)

    def _read_rows(self, request: _NumberBody) -> Table | None:
        if _is_ambiguous(request):
            return None
        if request.dataframe_split is not UNSET:
            return self._pick(request.dataframe_split.columns, request.dataframe_split.data)
        if request.inputs is not UNSET:
            columns = self._pick_inputs(request.inputs)
            return None if columns is None else list(zip(*columns, strict=True))
        records = request.dataframe_records if request.dataframe_records is not UNSET else request.instances
        return None if records is UNSET else self._pick_records(records)

    def _predict_cells(self, body: bytes) -> list[Any] | None:
        try:
            request = self._decode_cells(body)
        except UNREADABLE:
            return None
        columns = self._read_columns(request)
        if columns is None:
            return None
        pairs = zip(self._columns, columns, strict=True)
        if not all(_are_plain(column, values, self._most_exact) for column, values in pairs):
            return None
        if self._rounds:
            pairs = zip(self._columns, columns, strict=True)
            columns = [_round(values) if column.type == "float" else values for column, values in pairs]
        return self._model.answer_columns(columns)

    def _read_columns(self, request: _CellBody) -> Sequence[Sequence[Cell]] | None:
        if _is_ambiguous(request):
            return None
        inputs = request.inputs
        if isinstance(inputs, dict):
            if not any(isinstance(values, list) for values in inputs.values()):
                return self._pick_inputs({name: [value] for name, value in inputs.items()})
            if not all(isinstance(values, list) for values in inputs.values()):
                return None
            return self._pick_inputs(inputs)
        rows: Sequence[Sequence[Cell]] | None
        if request.dataframe_split is not UNSET:
            rows = self._pick(request.dataframe_split.columns, request.dataframe_split.data)
        else:
            given = (request.dataframe_records, request.instances, inputs)
            rows = self._pick_records(next(records for records in given if records is not UNSET))
        return None if not rows else list(zip(*rows, strict=True))

    def _pick(self, names: list[str], rows: list[list[Any]]) -> list[list[Any]] | None:
        """The rows in the order of the signature, without what it does not name."""
        width = len(names)
        if not rows or any(len(row) != width for row in rows):
            return None
        if names == self._names:
            return rows
        if len(set(names)) != width or not self._name_set.issubset(names):
            return None
        places = [names.index(name) for name in self._names]
        return [[row[place] for place in places] for row in rows]

    def _pick_records(self, records: list[dict[str, Any]]) -> list[list[Any]] | None:
        names = self._names
        if not records or any(record.keys() != self._name_set for record in records):
            return None
        return [[record[name] for name in names] for record in records]

    def _pick_inputs(self, inputs: dict[str, Any]) -> list[list[Any]] | None:
        if inputs.keys() != self._name_set:
            return None
        columns = [inputs[name] for name in self._names]
        length = len(columns[0])
        return columns if length and all(len(column) == length for column in columns) else None


def _is_ambiguous(request: _NumberBody | _CellBody) -> bool:
    given = (request.dataframe_split, request.dataframe_records, request.instances, request.inputs)
    return bool(request.params) or sum(part is not UNSET for part in given) != 1


def _has_odd_cells(table: Table) -> bool:
    return any(cell is None or not -_USUAL < cell < _USUAL for row in table for cell in row)


def _are_plain(column: Column, values: Sequence[Cell], limit: int) -> bool:
    """Whether MLflow takes these for what they are."""
    kinds = set(map(type, values))
    if column.type in ("double", "float"):
        return kinds <= {float, bool, type(None)} or (
            kinds <= {float, int, bool, type(None)}
            and all(type(value) is not int or abs(value) < _MOST for value in values)
        )
    if column.type == "string":
        # A NUL at its end is dropped by MLflow, in some formats.
        return kinds == {str} and not any(value.endswith("\0") for value in values)  # type: ignore[union-attr]
    if column.type == "boolean":
        return kinds == {bool}
    most = min(limit, _BOUNDS[column.type] - 1)
    return kinds == {int} and all(-most <= value <= most for value in values)  # type: ignore[operator]


def _round(values: Sequence[Any]) -> list[float]:
    """To the nearest float32, which beyond the largest is infinity."""
    return array("f", [math.nan if value is None else value for value in values]).tolist()
