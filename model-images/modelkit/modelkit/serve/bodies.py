"""The bodies of requests, as they come: each within its limit, and all together within a budget.

A body that came whole, as small ones do, is not counted: it is answered at once, or its queue is bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from modelkit.serve.answers import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class Gone(Exception):
    """The client went away before its request was complete."""


class BadBody(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Bodies:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = 0
        self._begun = _CommonTimeout(limits.request_seconds)

    async def begin(self, receive: Receive) -> Message:
        """The first message of a request, which is the whole body of most."""
        try:
            return await self._begun.receive(receive)
        except TimeoutError as error:
            raise self._late() from error

    def check(self, body: bytes, most: int) -> bytes:
        self._check_sizes(len(body), most)
        return body

    @asynccontextmanager
    async def read(self, message: Message, receive: Receive, most: int) -> AsyncIterator[bytes]:
        """The whole body that begins with `message`. It counts until the block is left."""
        pieces: list[bytes] = []
        size = 0
        try:
            try:
                async with asyncio.timeout(self._limits.request_seconds):
                    while True:
                        if message["type"] == "http.disconnect":
                            raise Gone
                        pieces.append(message.get("body", b""))
                        size += len(pieces[-1])
                        self._held += len(pieces[-1])
                        self._check_sizes(size, most)
                        if not message.get("more_body"):
                            break
                        message = await receive()
            except TimeoutError as error:
                raise self._late() from error
            body = b"".join(pieces)
            pieces.clear()
            yield body
        finally:
            self._held -= size

    def _late(self) -> BadBody:
        seconds = self._limits.request_seconds
        return BadBody(408, f"the body was not complete after {seconds:g} seconds")

    def _check_sizes(self, size: int, most: int) -> None:
        limit = self._limits.body_bytes
        if size > most:
            limit_name = (
                f"SERVE_MAX_BODY_BYTES={limit}" if most == limit else f"the {most} bytes of this call"
            )
            raise BadBody(413, f"the body is larger than {limit_name}")
        if self._held > self._limits.bodies * limit:
            raise BadBody(503, "the bodies that are being read take too much memory already: try again")


class _CommonTimeout:
    """One timer for all that wait equally long: one for each would cost every request some microseconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}  # since when, in this order
        self._timer: asyncio.TimerHandle | None = None
        self._late: set[asyncio.Task[Any]] = set()

    async def receive(self, receive: Receive) -> Message:
        """Raises TimeoutError."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine that runs has one
        loop = asyncio.get_running_loop()
        self._waiting[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._end_late, loop)
        try:
            return await receive()
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel():
                raise  # somebody else cancelled it
            raise TimeoutError from None
        finally:
            del self._waiting[task]
            self._late.discard(task)

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for task, since in self._waiting.items():
            if since + self._seconds > loop.time():
                self._timer = loop.call_at(since + self._seconds, self._end_late, loop)
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
