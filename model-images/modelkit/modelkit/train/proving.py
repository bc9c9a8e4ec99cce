"""Compares a compiled model with the native one, on rows that neither has seen and on rows made to part them.

Held-out rows show that the export is right where the data is. Rows far outside of it, single rows, missing
values and unknown words show how far that reaches: where the two part there, a server asks the native model.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace

from modelkit.compiled import CompiledModel, is_number
from modelkit.manifest import Column, Manifest

_MOST_ROWS = 10_000
_ALONE = 16  # rows compared one by one, as most requests bring them
_STRANGE = 256  # rows made up
_REACH = 3.0  # how far outside of a column's range they go, in its width
_LEAST_GAIN = 3.0  # batches have to be that many times faster
_LEAST_SECONDS = 0.0005  # and a row that slow: to wait for one's turn costs, too
_MOST_WORDS = 1_000  # of a text column that are remembered
_UNKNOWN = "a word that nobody has used before"


class Unproven(Exception):
    """The two models part; the message says where and by how much."""


@dataclass(frozen=True)
class Proof:
    """`native` answers a frame; `rows` are held out, `seen` are those it learned from."""

    native: Callable[[pd.DataFrame], Any]
    predict_fn: str
    rows: pd.DataFrame
    seen: pd.DataFrame

    def ask(self, rows: pd.DataFrame) -> Any:
        return np.asarray(self.native(rows))


def prove(graph: bytes, manifest: Manifest, proof: Proof) -> Manifest:
    """The manifest with what was found. Raises Unproven."""
    rows = proof.rows.head(_MOST_ROWS)
    complete = rows.dropna()
    if complete.empty:
        raise Unproven("no held-out row is without missing values")
    manifest = replace(manifest, columns=_learn_words(manifest.columns, proof.seen))
    complete = complete[_are_known(complete, manifest.columns)]
    model = CompiledModel(graph, manifest)
    strange = _make_strange_rows(complete, manifest.columns)
    difference = 0.0
    for name, compared in (("held-out rows", complete), ("rows outside of the data", strange)):
        expected = proof.ask(compared)
        difference = max(difference, _compare(model, expected, compared, name))
    for place in range(min(_ALONE, len(complete))):
        alone = complete.iloc[[place]]
        difference = max(difference, _compare(model, proof.ask(alone), alone, "single rows"))
    columns = tuple(_prove_column(graph, manifest, column, complete, proof) for column in manifest.columns)
    return replace(manifest, columns=columns, difference=difference, rows=len(complete) + len(strange))


def gains_by_batches(proof: Proof) -> bool:
    """Whether the native model answers rows together as it does one by one, in much less time."""
    rows = proof.rows.head(_ALONE)
    try:
        started = time.perf_counter()
        alone = np.concatenate([proof.ask(rows.iloc[[place]]) for place in range(len(rows))])
        between = time.perf_counter()
        together = proof.ask(rows)
        ended = time.perf_counter()
    except ValueError:  # it refuses one of them
        return False
    gains = between - started > max(_LEAST_GAIN * (ended - between), _LEAST_SECONDS * len(rows))
    if together.dtype.kind == "f":
        same = together.shape == alone.shape and bool(np.allclose(together, alone, rtol=1e-12, atol=0))
    else:
        same = bool(np.array_equal(together, alone))
    return same and gains


def _compare(model: CompiledModel, expected: Any, rows: pd.DataFrame, what: str) -> float:
    """The largest difference, relative to the larger of the value and the mean of all."""
    found = model.answer_columns(_list_columns(rows, model.manifest.columns))
    if found is None:
        raise Unproven(f"no finite answer for {what}")
    answer = np.asarray(found)
    if answer.shape != expected.shape:
        raise Unproven(f"answers of shape {answer.shape} instead of {expected.shape} for {what}")
    if model.manifest.answer != "number":
        parted = int((answer != expected).sum())
        if parted:
            raise Unproven(f"{parted} of {len(rows)} labels differ for {what}")
        return 0.0
    size = np.maximum(np.abs(expected), np.abs(expected).mean())
    difference = float((np.abs(answer - expected) / np.where(size == 0, 1.0, size)).max())
    if not difference <= model.manifest.tolerance:
        raise Unproven(f"differs by {difference:.2g} for {what}, {model.manifest.tolerance:.0e} is allowed")
    return difference


def _prove_column(
    graph: bytes, manifest: Manifest, column: Column, rows: pd.DataFrame, proof: Proof
) -> Column:
    """The column with what it may be given beside values like those of the data."""
    strange: str | float
    if column.type == "string":
        trial, strange = replace(column, unknown=True), _UNKNOWN
    elif column.type in ("double", "float"):
        trial, strange = replace(column, missing=True), np.nan
    else:
        return column
    changed = rows.head(_STRANGE).copy()
    changed[column.name] = strange
    tried = replace(
        manifest, columns=tuple(trial if known.name == column.name else known for known in manifest.columns)
    )
    try:
        expected = proof.ask(changed)
    except ValueError:  # the native model refuses it, in words that only it has
        return column
    try:
        _compare(CompiledModel(graph, tried), expected, changed, column.name)
    except Unproven:
        return column
    return trial


def _learn_words(columns: Sequence[Column], seen: pd.DataFrame) -> tuple[Column, ...]:
    return tuple(
        replace(column, known=tuple(seen[column.name].dropna().unique()[:_MOST_WORDS].tolist()))
        if column.type == "string"
        else column
        for column in columns
    )


def _are_known(rows: pd.DataFrame, columns: Sequence[Column]) -> Any:
    known = np.ones(len(rows), bool)
    for column in columns:
        if column.type == "string":
            known &= rows[column.name].isin(column.known).to_numpy()
    return known


def _make_strange_rows(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    made = rows.sample(_STRANGE, replace=True, random_state=0).reset_index(drop=True)
    for column in columns:
        if column.type in ("double", "float"):
            least, most = float(rows[column.name].min()), float(rows[column.name].max())
            reach = _REACH * (most - least)
            made[column.name] = chance.uniform(least - reach, most + reach, len(made))
    return made


def _list_columns(rows: pd.DataFrame, columns: Sequence[Column]) -> list[Any]:
    return [
        rows[column.name].to_numpy() if is_number(column) else rows[column.name].tolist()
        for column in columns
    ]
