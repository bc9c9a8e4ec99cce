"""The bodies of requests, as they come: each within its limit, and all together within a budget.

A body that came whole, as small ones do, is not counted: the queue bounds how many there are.
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
                seconds = self._limits.request_seconds
                raise BadBody(408, f"the body was not complete after {seconds:g} seconds") from error
            yield b"".join(pieces)
        finally:
            self._held -= size

    def _check_sizes(self, size: int, most: int) -> None:
        limit = self._limits.body_bytes
        if size > most:
            limit_name = (
                f"SERVE_MAX_BODY_BYTES={limit}" if most == limit else f"the {most} bytes of this call"
            )
            raise BadBody(413, f"the body is larger than {limit_name}")
        if self._held > self._limits.bodies * limit:
            raise BadBody(503, "the bodies that are being read take too much memory already: try again")
