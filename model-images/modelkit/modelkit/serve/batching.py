"""Requests that come while the native model is at work are answered together by its next turn.

scikit-learn spends most of a single row on what it does once per call: a forest takes twice as long for a
thousand rows as for one. Only for a model that the trainer saw to answer each row for itself, and to
gain by this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import Any, Generic, ParamSpec, TypeVar

_MOST_ROWS = 64  # a larger request has little to gain, and goes by itself

Table = TypeVar("Table")
Given = ParamSpec("Given")
Found = TypeVar("Found")

Permits = BoundedSemaphore  # as many as there may be at work; who waits for a turn needs none


@dataclass
class _Request(Generic[Table]):
    table: Table
    answer: list[Any] | None = None
    is_done: bool = False


class Batcher(Generic[Table]):
    def __init__(
        self,
        answer: Callable[[Table], list[Any] | None],
        join: Callable[[list[Table]], Table],
        count_rows: Callable[[Table], int],
    ) -> None:
        """`answer` takes a table of rows; None means that it cannot answer them."""
        self._ask, self._join, self._count = answer, join, count_rows
        self._turn = Lock()
        self._adding = Lock()
        self._waiting: list[_Request[Table]] = []

    def answer(self, table: Table) -> list[Any] | None:
        if self._count(table) > _MOST_ROWS:
            return self._ask(table)
        mine = _Request(table)
        with self._adding:
            self._waiting.append(mine)
        with self._turn:  # whoever has it answers all that wait
            if not mine.is_done:
                self._answer_all()
        return mine.answer

    def _answer_all(self) -> None:
        with self._adding:
            together, self._waiting = self._waiting, []
        found = self._ask(self._join([request.table for request in together]))
        if len(together) == 1:
            together[0].answer, together[0].is_done = found, True
            return
        place = 0
        for request in together:
            if found is None:  # one of them spoils it for all: each by itself
                request.answer = self._ask(request.table)
            else:
                request.answer = found[place : place + self._count(request.table)]
                place += self._count(request.table)
            request.is_done = True


def hold(permits: Permits, work: Callable[Given, Found]) -> Callable[Given, Found]:
    def work_with_permit(*given: Given.args, **named: Given.kwargs) -> Found:
        with permits:
            return work(*given, **named)

    return work_with_permit
