"""Requests that the event loop finds at once are answered by one run of the compiled model.

Between the system calls of two requests a run for one row takes three to four times as long as in a loop, and
hardly longer for all rows that have come meanwhile. Nobody is kept for others to come.
"""

import asyncio
from collections.abc import Callable, Sequence

_MOST_BODY_BYTES = 2 * 2**10  # one with more rows shares little, and would keep the others waiting
_MOST_BYTES = 16 * 2**10  # of a run: it takes memory in proportion, and its time is everybody's
_ALONE = 15  # requests that are answered at once, which is quicker for who is alone, before another look

AnswerTogether = Callable[[Sequence[bytes]], list[bytes | None]]


class Gathering:
    def __init__(self, answer: AnswerTogether) -> None:
        self._answer = answer
        self._waiting: list[tuple[bytes, asyncio.Future[bytes | None]]] = []
        self._bytes = 0  # of those that wait
        self._turn: asyncio.Handle | None = None
        self._alone = 0  # so many more are taken to be alone

    async def ask(self, body: bytes) -> bytes | None:
        if self._alone or len(body) > _MOST_BODY_BYTES:
            self._alone = max(0, self._alone - 1)
            return self._answer([body])[0]
        if self._bytes + len(body) > _MOST_BYTES:
            self._answer_all()
        loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = loop.call_soon(self._take_turn)  # after every request whose turn it is already
        found: asyncio.Future[bytes | None] = loop.create_future()
        self._waiting.append((body, found))
        self._bytes += len(body)
        return await found

    def _take_turn(self) -> None:
        self._turn = None
        if len(self._waiting) == 1:
            self._alone = _ALONE
        self._answer_all()

    def _answer_all(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        try:
            answers = self._answer([body for body, _ in waiting])
        except Exception as error:  # noqa: BLE001 - each of them is told, or would wait for ever
            for _, found in waiting:
                if not found.done():
                    found.set_exception(error)
            return
        for (_, found), answer in zip(waiting, answers, strict=True):
            if not found.done():  # its client may have gone
                found.set_result(answer)
