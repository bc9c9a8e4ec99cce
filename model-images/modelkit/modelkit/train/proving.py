"""Compares a compiled model with the native one, on rows that neither has seen and on rows made to part them.

Held-out rows show that the export is right where the data is; rows far outside of it, single rows and every
known word show that it is elsewhere, too. A model that parts there is not served compiled. Missing values and
unknown words show how far it reaches: where the two part there, a server asks the native model.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from msgspec.structs import replace

from modelkit.compiled import CompiledModel, is_number
from modelkit.manifest import Column, Manifest

_MOST_ROWS = 10_000
_LEAST_ROWS = 20  # that differ; fewer prove nothing
_ALONE = 16  # rows compared one by one, as most requests bring them
_STRANGE = 256  # rows made up
_REACH = 3.0  # how far outside of a column's range they go, in its width
_LEAST_GAIN = 3.0  # batches have to be that many times faster
_LEAST_SECONDS = 0.0005  # and a row that slow: to wait for one's turn costs, too
_MOST_WORDS = 1_000  # of a text column that are remembered
_FRACTIONS = ("double", "float")

# Words that converters or runtime took for something else, or could.
_STRANGE_WORDS = (
    *("", " ", "\0", "nan", "NaN", "None", "null", "<NA>", "0", "1.5", "true"),
    *("a word that nobody has used before", "über", "名前", "🙂", "two\nlines"),
)
_MOST_SPELT = 20  # known words of a column that are written in other ways
_SPELLINGS = ("{}s", "s{}", "{}é", "é{}", " {}", "{} ", "{0} {0}", "a {} more", "{}-{}", "{}\0")

log = logging.getLogger("modelkit.train")


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
    rows = proof.rows.head(_MOST_ROWS).drop_duplicates()
    columns = _learn_words(manifest.columns, proof.seen)
    usual = rows[_fit(rows, columns)]
    if len(usual) < _LEAST_ROWS:
        raise Unproven(
            f"{len(usual)} different held-out rows have no missing value and no unknown word,"
            f" {_LEAST_ROWS} are needed"
        )
    # It refuses nothing, so that all there is can be tried with it.
    open_columns = tuple(replace(column, missing=True, unknown=True) for column in columns)
    model = CompiledModel(graph, replace(manifest, columns=open_columns))
    difference, compared = 0.0, []
    for what, tried in _list_trials(usual, columns):
        difference = max(difference, _compare(model, proof, tried, what))
        compared.append(tried)
    _check_each_for_itself(model, usual.head(_ALONE))
    distinct = len(pd.concat(compared).drop_duplicates())
    columns = _widen(model, columns, proof, rows, usual)
    return replace(manifest, columns=columns, difference=difference, rows=distinct)


def _check_each_for_itself(model: CompiledModel, rows: pd.DataFrame) -> None:
    """A server answers the rows of several clients together. Raises Unproven."""
    table = rows[[column.name for column in model.manifest.columns]]
    together = _answer(model, table)
    alone = [_answer(model, table.iloc[[place]]) for place in range(len(table))]
    if together is None or None in alone:
        raise Unproven("no finite answer for some of the held-out rows")
    each = np.concatenate([np.asarray(answer) for answer in alone])
    _measure(model.manifest, together, each, "rows together, beside the same alone")


def _answer(model: CompiledModel, table: pd.DataFrame) -> list[Any] | None:
    return model.answer_columns(
        [
            table[column.name].to_numpy() if is_number(column) else table[column.name].tolist()
            for column in model.manifest.columns
        ]
    )


def gains_by_batches(proof: Proof) -> bool:
    """Whether the native model answers rows together as it does one by one, in much less time."""
    rows = proof.rows.head(_ALONE)
    try:
        started = time.perf_counter()
        alone = np.concatenate([proof.ask(rows.iloc[[place]]) for place in range(len(rows))])
        between = time.perf_counter()
        together = proof.ask(rows)
        ended = time.perf_counter()
    except Exception:  # it refuses one of them, in whatever way it has
        log.info("requests will be answered one by one", exc_info=True)
        return False
    gains = between - started > max(_LEAST_GAIN * (ended - between), _LEAST_SECONDS * len(rows))
    if together.dtype.kind == "f":
        same = together.shape == alone.shape and bool(np.allclose(together, alone, rtol=1e-12, atol=0))
    else:
        same = bool(np.array_equal(together, alone))
    return same and gains


def _list_trials(usual: pd.DataFrame, columns: Sequence[Column]) -> Iterator[tuple[str, pd.DataFrame]]:
    """What every compiled model has to pass."""
    yield "held-out rows", usual
    yield "rows outside of the data", _reach_out(usual, columns)
    for column in columns:
        if column.type == "string":
            yield f"known words of {column.name!r}", _with_words(usual, column, column.known)
    for place in range(_ALONE):
        yield "single rows", usual.iloc[[place]]


def _widen(
    model: CompiledModel, columns: tuple[Column, ...], proof: Proof, rows: pd.DataFrame, usual: pd.DataFrame
) -> tuple[Column, ...]:
    """The columns with what they may be given beside values like those of the data: each tried alone, then
    all of it together; if they part only then, without the missing values, or without any of it."""

    def agree(tried: pd.DataFrame, what: str) -> bool:
        try:
            _compare(model, proof, tried, what)
        except Exception as error:  # noqa: BLE001 - the native model may refuse it in any way, the runtime, too
            log.info("left to the native model: %s: %s", what, error)
            return False
        return True

    def widen(column: Column) -> Column:
        if column.type == "string":
            strange = _with_words(usual, column, _list_strange_words(column))
            return replace(column, unknown=agree(strange, f"unknown words of {column.name!r}"))
        if column.type in _FRACTIONS:
            gaps = usual.head(_STRANGE).assign(**{column.name: np.nan})
            return replace(column, missing=agree(gaps, f"missing values of {column.name!r}"))
        return column

    widest = tuple(map(widen, columns))
    for widened in (widest, tuple(replace(column, missing=False) for column in widest)):
        if agree(pd.concat([rows[_fit(rows, widened)], _mix(usual, widened)]), "all of it together"):
            return widened
    return columns


def _compare(model: CompiledModel, proof: Proof, rows: pd.DataFrame, what: str) -> float:
    """The largest difference by any of the ways in which a server asks."""
    expected = proof.ask(rows)
    columns = model.manifest.columns
    table = rows[[column.name for column in columns]]
    found = [_answer(model, table)]
    if all(column.type in _FRACTIONS for column in columns):
        found.append(model.answer_matrix(table.to_numpy().tolist()))
    return max(_measure(model.manifest, answer, expected, what) for answer in found)


def _measure(manifest: Manifest, found: list[Any] | None, expected: Any, what: str) -> float:
    """The largest difference, relative to the larger of the value and the mean of all. Raises Unproven."""
    if found is None:
        raise Unproven(f"no finite answer for {what}")
    answer = np.asarray(found)
    if answer.shape != expected.shape:
        raise Unproven(f"answers of shape {answer.shape} instead of {expected.shape} for {what}")
    if manifest.answer != "number":
        parted = int((answer != expected).sum())
        if parted:
            raise Unproven(f"{parted} of {len(expected)} labels differ for {what}")
        return 0.0
    size = np.maximum(np.abs(expected), np.abs(expected).mean())
    difference = float((np.abs(answer - expected) / np.where(size == 0, 1.0, size)).max())
    if not difference <= manifest.tolerance:
        raise Unproven(f"differs by {difference:.2g} for {what}, {manifest.tolerance:.0e} is allowed")
    return difference


def _learn_words(columns: Sequence[Column], seen: pd.DataFrame) -> tuple[Column, ...]:
    return tuple(
        replace(column, known=tuple(seen[column.name].dropna().unique()[:_MOST_WORDS].tolist()))
        if column.type == "string"
        else column
        for column in columns
    )


def _fit(rows: pd.DataFrame, columns: Sequence[Column]) -> Any:
    """Which of the rows hold nothing but what the columns may be given."""
    fit = np.ones(len(rows), bool)
    for column in columns:
        values = rows[column.name]
        if column.type == "string" and not column.unknown:
            fit &= values.isin(column.known).to_numpy()
        elif not column.missing:
            fit &= values.notna().to_numpy()
    return fit


def _reach_out(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    made = rows.sample(_STRANGE, replace=True, random_state=0).reset_index(drop=True)
    for column in columns:
        if column.type in _FRACTIONS:
            least, most = float(rows[column.name].min()), float(rows[column.name].max())
            reach = _REACH * (most - least)
            made[column.name] = chance.uniform(least - reach, most + reach, len(made))
    return made


def _mix(rows: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Rows with any number of missing values and strange words in them; the first has nothing else."""
    chance = np.random.default_rng(0)
    made = rows.sample(_STRANGE, replace=True, random_state=0).reset_index(drop=True)
    for column in columns:
        struck = chance.random(len(made)) < 0.5
        struck[0] = True
        if column.missing:
            made.loc[struck, column.name] = np.nan
        elif column.unknown:
            words = np.array(_list_strange_words(column), object)
            made.loc[struck, column.name] = chance.choice(words, struck.sum())
    return made


def _with_words(rows: pd.DataFrame, column: Column, words: Sequence[str]) -> pd.DataFrame:
    """One row for each word."""
    made = rows.iloc[np.arange(len(words)) % len(rows)].reset_index(drop=True)
    made[column.name] = list(words)
    return made


def _list_strange_words(column: Column) -> list[str]:
    """Some are like nothing in the data, others much like a word of it."""
    words = list(_STRANGE_WORDS)
    for word in column.known[:_MOST_SPELT]:
        words += [spelling.format(word, column.known[0]) for spelling in _SPELLINGS]
        words += [word.upper(), word.title(), f"É{word.upper()}", word[:-1]]
    return words
