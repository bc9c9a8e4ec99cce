"""Rows that a challenge is judged on, with their true values: read from a file, and made into requests.

Two forms: JSON in MLflow's split orient with the target's name in it, as `modelkit` logs it with a model, and
CSV with a header. CSV has no types: a column is of numbers, or of truth values, if all of its values are.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LOGGED_FILE = "evaluation/held_out.json"  # beside the model's own files
MAX_BYTES = 16 * 2**20
BATCH_ROWS = 100

Cell = str | int | float | bool | None


class UnusableRows(ValueError):
    """The text says what is wrong with them."""


@dataclass(frozen=True)
class HeldOut:
    bodies: tuple[tuple[bytes, int], ...]  # of features, for `/invocations`, each with its number of rows
    truth: tuple[Cell, ...]
    target: str
    digest: str  # of the file
    total: int  # rows in the file, of which these may be a part


def read_json(content: bytes, target: str | None, most: int) -> HeldOut:
    """Raises UnusableRows."""
    try:
        table = json.loads(content, parse_constant=lambda _: None, parse_float=_read_float)
        named = target if target is not None else table["target"]
        columns, data = table["columns"], table["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnusableRows("it is not JSON with `columns`, `data` and `target`") from error
    if not isinstance(named, str) or not isinstance(columns, list) or not isinstance(data, list):
        raise UnusableRows("`target` must be a name, `columns` and `data` must be lists")
    return _divide([str(each) for each in columns], data, named, content, most)


def read_csv(content: bytes, target: str, most: int, texts: frozenset[str] = frozenset()) -> HeldOut:
    """`texts`: columns that stay text, whatever is in them. Raises UnusableRows."""
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnusableRows(f"it is not CSV: {error}") from error
    header, *data = [line for line in lines if line] or [[]]
    _check_rows(header, data)
    cells = [
        _read_column([line[place] for line in data], as_text=name in texts, exactly=name == target)
        for place, name in enumerate(header)
    ]
    return _divide(header, list(zip(*cells, strict=True)), target, content, most)


def _divide(columns: list[str], data: list[Any], target: str, content: bytes, most: int) -> HeldOut:
    _check_rows(columns, data)
    if target not in columns:
        raise UnusableRows(f"it has no column `{target}`")
    if len(columns) < 2:
        raise UnusableRows(f"it has no column beside its target `{target}`")
    place = columns.index(target)
    chosen = _spread(data, most)
    truth = tuple(row[place] for row in chosen)
    if not all(isinstance(value, str | int | float) for value in truth):
        raise UnusableRows(f"`{target}` is not a plain value in every row")
    features = [[*row[:place], *row[place + 1 :]] for row in chosen]
    return HeldOut(
        bodies=tuple(_make_bodies(columns[:place] + columns[place + 1 :], features)),
        truth=truth,
        target=target,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        total=len(data),
    )


def _make_bodies(columns: list[str], features: list[list[Any]]) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(features), BATCH_ROWS):
        batch = features[start : start + BATCH_ROWS]
        try:
            body = json.dumps({"dataframe_split": {"columns": columns, "data": batch}}, allow_nan=False)
        except RecursionError as error:
            raise UnusableRows("a value in it is nested too deep") from error
        yield body.encode(), len(batch)


def _check_rows(columns: list[str], data: list[Any]) -> None:
    if len(set(columns)) < len(columns):
        raise UnusableRows("two columns have one name")
    if not data:
        raise UnusableRows("it has no rows")
    for number, row in enumerate(data, start=1):
        if not isinstance(row, list | tuple) or len(row) != len(columns):
            raise UnusableRows(f"row {number} does not have {len(columns)} values, one for each column")


def _spread(data: list[Any], most: int) -> list[Any]:
    """Over the whole file: the first rows of a sorted one would all be alike."""
    if len(data) <= most:
        return data
    return [data[number * len(data) // most] for number in range(most)]


def _read_float(text: str) -> float | None:
    """JSON has no word for what is not finite."""
    value = float(text)
    return value if math.isfinite(value) else None


def _read_column(texts: list[str], *, as_text: bool, exactly: bool) -> list[Cell]:
    """`exactly`: a class's name like 007 is not the number 7."""
    given = [text for text in texts if text]
    as_text = as_text or (exactly and any(re.fullmatch(r"[+-]?0\d+", text) for text in given))
    if as_text or not given:
        return [text or None for text in texts]
    if all(text.lower() in {"true", "false"} for text in given):
        return [text.lower() == "true" if text else None for text in texts]
    for kind in (int, _read_float):
        try:
            return [kind(text) if text else None for text in texts]
        except ValueError:
            continue
    return [text or None for text in texts]
