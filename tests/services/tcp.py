"""Peers that behave badly on purpose: one that never answers, one with a fixed answer, a link that breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listen(handle: Handler) -> AsyncIterator[int]:
    """Port on the loopback where `handle` gets every connection; all of them end with the block."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        ending = list(connections)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending)


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


class FixedAnswer:
    """Answers every request alike, and keeps what it was sent."""

    def __init__(self, status: str, body: bytes, content_type: str = "text/plain") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        self._answer = head.encode() + b"Connection: close\r\n\r\n" + body
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        await writer.drain()


class Link:
    """Carries bytes to a server on the loopback and its answers back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lose_answer_to: bytes | None = None
        self.lost = 0

    def lose_next_answer_to(self, request: bytes) -> None:
        """The server gets the next request that holds these bytes and does it; the client never hears."""
        self._lose_answer_to = request

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._port)
        losing = asyncio.Event()
        answers = asyncio.create_task(self._carry_answers(inner_reader, writer, losing))
        try:
            while data := await reader.read(65536):
                if self._lose_answer_to is not None and self._lose_answer_to in data:
                    self._lose_answer_to = None
                    losing.set()
                inner_writer.write(data)
        finally:
            answers.cancel()
            inner_writer.close()

    async def _carry_answers(
        self, inner: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
    ) -> None:
        while data := await inner.read(65536):
            if losing.is_set():
                self.lost += 1
                break
            writer.write(data)
        writer.close()
