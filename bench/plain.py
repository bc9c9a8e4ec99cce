"""HTTP/1.1 by hand over one kept connection: what a client without any retry sees, at the least cost to us.

Two cores carry the client, the proxy, the router and the servers; a client library's own milliseconds would
end up in the figures.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case

    @property
    def served_by(self) -> str:
        return self.headers.get("x-served-by", "")


def make_request(url: str, method: str, path: str, body: bytes | None = None) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + (body or b"")


class PlainConnection:
    """One request at a time. Connects when it has to; after an error the next request connects again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> Answer:
        """Raises OSError, TimeoutError or asyncio.IncompleteReadError."""
        try:
            return await asyncio.wait_for(self._exchange(request), ANSWER_SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        await self._skip_body(reader, headers)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(int(status_line.split()[1]), headers)

    @staticmethod
    async def _skip_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        if headers.get("transfer-encoding") != "chunked":
            await reader.readexactly(int(headers.get("content-length", "0")))
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
