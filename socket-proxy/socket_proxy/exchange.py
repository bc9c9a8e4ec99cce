"""The client's side: one request and its answer, over ASGI."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from socket_proxy.refusal import Refused, show

MAX_BODY = 64 * 1024
TOO_LARGE = f"the body is larger than {MAX_BODY} bytes"
BODY_SECONDS = 10.0

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Exchange:
    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.raw_path: bytes = scope["raw_path"]
        self.raw_query: bytes = scope["query_string"]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._receive = receive
        self._send = send
        self.started = False

    def __str__(self) -> str:
        return f"{self.method} {show(self.raw_path.decode('latin-1'))}"

    def check_headers(self, *, with_body: bool) -> None:
        """Refuse what two readers could see as two requests, and what would turn into another protocol."""
        if "upgrade" in self.headers or "upgrade" in self.headers.get("connection", "").lower():
            raise Refused("the connection stays HTTP")
        length = self.headers.get("content-length", "0")
        chunked = "transfer-encoding" in self.headers
        if chunked and "content-length" in self.headers:
            raise Refused("both Content-Length and Transfer-Encoding", 400)
        if not with_body and (chunked or length != "0"):
            raise Refused("this call has no body", 400)
        if with_body and self.headers.get("content-type") != "application/json":
            raise Refused("the body must be application/json", 400)
        if int(length) > MAX_BODY:  # h11 has checked that it is a number
            raise Refused(TOO_LARGE, 413)

    async def read_body(self) -> bytes:
        """All of it, counted, however it is sent."""
        body = bytearray()
        with anyio.move_on_after(BODY_SECONDS):
            while True:
                message = await self._receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise Refused(TOO_LARGE, 413)
                if message["type"] == "http.disconnect":
                    raise Refused("the body has ended early", 400)
                if not message["more_body"]:
                    return bytes(body)
        raise Refused(f"the body has not come within {BODY_SECONDS:.0f} s", 408)

    @asynccontextmanager
    async def ending_with_client(self) -> AsyncIterator[anyio.CancelScope]:
        """What runs inside is cancelled when the client goes away. To be entered after its body."""
        with anyio.CancelScope() as scope:

            async def watch() -> None:
                while (await self._receive())["type"] != "http.disconnect":
                    pass
                scope.cancel()

            watching = asyncio.create_task(watch())
            try:
                yield scope
            finally:
                watching.cancel()

    async def answer(self, status: int, headers: Mapping[str, str], chunks: AsyncIterable[bytes]) -> None:
        """Each chunk as it comes; the next one is taken when the client has room for it."""
        await self._start(status, headers)
        async for chunk in chunks:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, status: int, reason: str) -> None:
        """In the shape of Docker's own errors. The connection ends: what follows on it is not read."""
        body = json.dumps({"message": reason}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.started = True
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
