"""What the lean protocol hands to a model, and what it leaves to MLflow's own way."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from modelkit.manifest import Column
from modelkit.serve.lean import LeanProtocol
from modelkit.serve.opening import bound_inline

NUMBERS = (Column("a", "double"), Column("b", "double"))
MIXED = (Column("a", "double"), Column("b", "string"))
BODY = b'{"dataframe_records": [{"a": 1.5, "b": 2}]}'


class Model:
    """Answers with what it is told to, and remembers what it was asked."""

    def __init__(self, answer: list[Any] | Exception | None) -> None:
        self.asked: list[Any] = []
        self._answer = answer

    def answer_matrix(self, rows: Any) -> list[Any] | None:
        return self.answer_columns(list(zip(*rows, strict=True)))

    def answer_columns(self, columns: Sequence[Sequence[Any]]) -> list[Any] | None:
        self.asked.append([list(values) for values in columns])
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize("columns", [NUMBERS, MIXED])
@pytest.mark.parametrize(
    "body",
    [
        b'{"dataframe_records": [{"a": "\xff", "b": 1}]}',
        b'{"dataframe_records": [{"\xff": 1, "b": 1}]}',
        b'{"dataframe_records": [{"a": %s, "b": 1}]}' % (b"9" * 5000),
    ],
)
def test_what_cannot_be_read_is_left(columns: tuple[Column, ...], body: bytes) -> None:
    model = Model([0.5])
    assert LeanProtocol(model, columns, "float64").answer(body) is None
    assert model.asked == []


def test_text_that_ends_in_nul_is_left_since_mlflow_drops_that_in_some_formats() -> None:
    model = Model([0.5])
    for text, is_left in (("x\0", True), ("\0x", False)):
        body = json.dumps({"dataframe_records": [{"a": 1.5, "b": text}]}).encode()
        assert (LeanProtocol(model, MIXED, "float64").answer(body) is None) is is_left


@pytest.mark.parametrize("answer", [ValueError("no such value"), [object()]])
def test_a_request_that_the_model_fails_on_is_left_and_logged(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert LeanProtocol(Model(answer), NUMBERS, "float64").answer(BODY) is None
    assert "left to MLflow's own way: " in caplog.text


def test_a_model_is_asked_once() -> None:
    model = Model(None)
    assert LeanProtocol(model, NUMBERS, "float64").answer(BODY) is None
    assert model.asked == [[[1.5], [2]]]


def test_cells_of_a_float_column_are_rounded_for_a_model_of_doubles() -> None:
    model = Model([0.5])
    columns = (Column("a", "float", missing=True), Column("b", "double"))
    body = {"inputs": {"a": [0.1, 1e39, 2], "b": [0.1, 1e39, 2]}}
    assert LeanProtocol(model, columns, "float64").answer(json.dumps(body).encode()) is not None
    assert model.asked == [[[0.10000000149011612, float("inf"), 2.0], [0.1, 1e39, 2]]]


@pytest.mark.parametrize("names", [["a"], ["width", "height", "weight"]])
def test_a_body_that_the_event_loop_answers_holds_no_more_rows_than_it_has_a_millisecond_for(
    names: list[str],
) -> None:
    shortest = json.dumps({"inputs": {name: [0] * 26 for name in names}}, separators=(",", ":"))
    assert len(shortest) > bound_inline(names, 0.001 / 25)
