"""Four kinds of client at once against one URL, at a steady rate, with every failure kept.

A switch that is lossless for one kind of client may lose another's requests: one that opens a connection for
each request can meet a closing listener, one that keeps a connection can meet its end, one with a request in
flight can see it cut. Nobody here retries anything.

`python -m bench.load URL --rate 200 --requests 2000` prints one JSON report. It ends early, and cleanly, at
SIGTERM.
"""

import argparse
import asyncio
import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

import httpx

ANSWER_SECONDS = 30.0
SLOW_SECONDS = 2.0
KINDS = ("new", "pooled", "plain", "slow")


@dataclass
class Report:
    requests: int = 0
    failed: int = 0
    posts: int = 0
    seconds: float = 0.0
    by_kind: Counter[str] = field(default_factory=Counter)
    failed_by_kind: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    served_by: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)  # of all but the slow kind

    def note(self, kind: str, method: str, status: int, server: str, seconds: float) -> None:
        self.requests += 1
        self.by_kind[kind] += 1
        self.posts += method == "POST"
        if status != 200:
            self.fail(kind, f"{method} {status}")
        self.served_by[server] += 1
        if kind != "slow":
            self.latencies_ms.append(round(seconds * 1000, 2))

    def note_broken(self, kind: str, method: str, error: Exception) -> None:
        self.requests += 1
        self.by_kind[kind] += 1
        self.posts += method == "POST"
        self.fail(kind, f"{method} {type(error).__name__}: {error}")

    def fail(self, kind: str, reason: str) -> None:
        self.failed += 1
        self.failed_by_kind[kind] += 1
        self.reasons[reason] += 1


Send = Callable[[str], Awaitable[tuple[int, str]]]  # method -> status, X-Served-By


class PlainConnection:
    """HTTP/1.1 by hand over one connection that is kept: what a client without any retry sees."""

    def __init__(self, url: str, body: bytes) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        self._requests = {
            "GET": f"GET /ping HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode(),
            "POST": f"POST /invocations HTTP/1.1\r\n{head}{len(body)}\r\n\r\n".encode() + body,
        }
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str) -> tuple[int, str]:
        try:
            return await asyncio.wait_for(self._exchange(method), ANSWER_SECONDS)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            raise

    async def _exchange(self, method: str) -> tuple[int, str]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(self._requests[method])
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        else:
            await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(status_line.split()[1]), headers.get("x-served-by", "")

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def send_with(client: httpx.AsyncClient, body: bytes, method: str) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    if method == "GET":
        response = await client.get("/ping")
    else:
        response = await client.post("/invocations", content=body, headers=headers)
    return response.status_code, response.headers.get("x-served-by", "")


class Load:
    """`rate` requests a second over all kinds; the slow kind keeps `slow` requests in flight all the time."""

    def __init__(self, url: str, body: bytes, slow_body: bytes, rate: float, slow: int = 4) -> None:
        self.report = Report()
        self._url, self._body, self._slow_body = url, body, slow_body
        self._rate, self._slow = rate, slow
        self._stopping = asyncio.Event()
        self._idle_connections: list[PlainConnection] = []

    def stop(self) -> None:
        self._stopping.set()

    async def run(self, requests: int) -> Report:
        """Returns when so many paced requests were sent and all answered, or after `stop`."""
        options = {"base_url": self._url, "timeout": ANSWER_SECONDS, "trust_env": False}
        fresh = httpx.Limits(max_keepalive_connections=0)
        began = time.monotonic()
        async with (
            httpx.AsyncClient(limits=fresh, **options) as new,  # type: ignore[arg-type]
            httpx.AsyncClient(**options) as pooled,  # type: ignore[arg-type]
            asyncio.TaskGroup() as group,
        ):
            slow = [group.create_task(self._keep_slow(pooled)) for _ in range(self._slow)]
            await self._pace(group, requests, new, pooled)
            self._stopping.set()
            await asyncio.gather(*slow)
        for connection in self._idle_connections:
            connection.close()
        self.report.seconds = time.monotonic() - began
        return self.report

    async def _pace(
        self, group: asyncio.TaskGroup, requests: int, new: httpx.AsyncClient, pooled: httpx.AsyncClient
    ) -> None:
        kinds = itertools.cycle(("new", "pooled", "plain"))
        methods = itertools.cycle(("GET", "POST"))
        began = time.monotonic()
        for number in range(requests):
            if self._stopping.is_set():
                return
            # An open loop: a slow answer does not slow the offer down.
            await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
            group.create_task(self._send_one(next(kinds), next(methods), new, pooled))

    async def _send_one(
        self, kind: str, method: str, new: httpx.AsyncClient, pooled: httpx.AsyncClient
    ) -> None:
        if kind == "plain":
            connection = (
                self._idle_connections.pop()
                if self._idle_connections
                else PlainConnection(self._url, self._body)
            )
            await self._measure(kind, method, connection.send)
            self._idle_connections.append(connection)
            return
        client = new if kind == "new" else pooled
        await self._measure(kind, method, lambda method: send_with(client, self._body, method))

    async def _keep_slow(self, client: httpx.AsyncClient) -> None:
        while not self._stopping.is_set():
            await self._measure("slow", "POST", lambda method: send_with(client, self._slow_body, method))

    async def _measure(self, kind: str, method: str, send: Send) -> None:
        began = time.monotonic()
        try:
            status, server = await send(method)
        except (httpx.HTTPError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.report.note_broken(kind, method, error)
        else:
            self.report.note(kind, method, status, server, time.monotonic() - began)


async def run_load(arguments: argparse.Namespace) -> Report:
    load = Load(
        arguments.url, arguments.body.encode(), arguments.slow_body.encode(), arguments.rate, arguments.slow
    )
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    return await load.run(arguments.requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=4, help="slow requests in flight all the time")
    parser.add_argument("--body", default='{"inputs": [[1.0]]}')
    parser.add_argument("--slow-body", default=json.dumps({"sleep": SLOW_SECONDS}))
    json.dump(asdict(asyncio.run(run_load(parser.parse_args()))), sys.stdout)


if __name__ == "__main__":
    main()
