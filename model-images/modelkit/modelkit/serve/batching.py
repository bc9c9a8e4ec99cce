"""Requests that come while the native model is at work are answered together by its next turn.

scikit-learn spends most of a single row on what it does once per call: a forest takes twice as long for a
thousand rows as for one. Only for a model that the trainer saw to answer each row for itself, and to
gain by this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

_MOST_ROWS = 64  # a larger request has little to gain, and goes by itself

Answer = Callable[[Any], list[Any] | None]


@dataclass
class _Request:
    matrix: Any
    answer: list[Any] | None = None
    is_done: bool = False


class Batcher:
    def __init__(self, answer: Answer) -> None:
        """`answer` takes a matrix of rows; None means that it cannot answer them."""
        self._ask = answer
        self._turn = Lock()
        self._adding = Lock()
        self._waiting: list[_Request] = []

    def answer(self, matrix: Any) -> list[Any] | None:
        if len(matrix) > _MOST_ROWS:
            return self._ask(matrix)
        mine = _Request(matrix)
        with self._adding:
            self._waiting.append(mine)
        with self._turn:  # whoever has it answers all that wait
            if not mine.is_done:
                self._answer_all()
        return mine.answer

    def _answer_all(self) -> None:
        with self._adding:
            together, self._waiting = self._waiting, []
        found = self._ask(np.vstack([request.matrix for request in together]))
        if len(together) == 1:
            together[0].answer, together[0].is_done = found, True
            return
        place = 0
        for request in together:
            if found is None:  # one of them spoils it for all: each by itself
                request.answer = self._ask(request.matrix)
            else:
                request.answer = found[place : place + len(request.matrix)]
                place += len(request.matrix)
            request.is_done = True
