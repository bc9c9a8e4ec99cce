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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from bench.plain import ANSWER_SECONDS, PlainConnection, make_request

SLOW_SECONDS = 2.0
KINDS = ("new", "pooled", "plain", "slow")
CONNECTIONS = 200  # of each pool; a client that waits for one of its own would not be an open loop
JSON_BODY = {"Content-Type": "application/json"}


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
        self._count(kind, method)
        if status != 200:
            self._fail(kind, f"{method} {status}")
        self.served_by[server] += 1
        if kind != "slow":
            self.latencies_ms.append(round(seconds * 1000, 2))

    def note_broken(self, kind: str, method: str, error: Exception) -> None:
        self._count(kind, method)
        self._fail(kind, f"{method} {type(error).__name__}: {error}")

    def _count(self, kind: str, method: str) -> None:
        self.requests += 1
        self.by_kind[kind] += 1
        self.posts += method == "POST"

    def _fail(self, kind: str, reason: str) -> None:
        self.failed += 1
        self.failed_by_kind[kind] += 1
        self.reasons[reason] += 1


@dataclass(frozen=True)
class Offer:
    """`rate` requests a second over the three quick kinds; `slow` more are in flight all the time."""

    url: str
    body: bytes
    slow_body: bytes
    rate: float
    slow: int = 4
    slow_upload: bool = False  # a slow request is one whose body takes its time, for servers that do not wait


Send = Callable[[str], Awaitable[tuple[int, str]]]  # method -> status, X-Served-By


class Load:
    def __init__(self, offer: Offer) -> None:
        self.report = Report()
        self._offer = offer
        self._plain_requests = {
            "GET": make_request(offer.url, "GET", "/ping"),
            "POST": make_request(offer.url, "POST", "/invocations", offer.body),
        }
        self._idle_connections: list[PlainConnection] = []
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    async def run(self, requests: int) -> Report:
        """Returns when so many paced requests were sent and all answered, or after `stop`."""
        began = time.monotonic()
        async with (
            self._make_client() as pooled,
            self._make_client() as slow,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(self._offer.slow):
                group.create_task(self._keep_slow(slow))
            await self._pace(group, requests, pooled)
            self._stopping.set()
        for connection in self._idle_connections:
            connection.close()
        self.report.seconds = time.monotonic() - began
        return self.report

    def _make_client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        return httpx.AsyncClient(
            base_url=self._offer.url, timeout=ANSWER_SECONDS, trust_env=False, limits=limits
        )

    async def _pace(self, group: asyncio.TaskGroup, requests: int, pooled: httpx.AsyncClient) -> None:
        kinds = itertools.cycle(("new", "pooled", "plain"))
        methods = itertools.cycle(("GET", "POST"))
        began = time.monotonic()
        for number in range(requests):
            if self._stopping.is_set():
                return
            # An open loop: a slow answer does not slow the offer down.
            await asyncio.sleep(max(0.0, began + number / self._offer.rate - time.monotonic()))
            group.create_task(self._send_one(next(kinds), next(methods), pooled))

    async def _send_one(self, kind: str, method: str, pooled: httpx.AsyncClient) -> None:
        if kind == "pooled":
            await self._measure(kind, method, lambda method: self._send_with(pooled, method))
            return
        kept = kind == "plain" and self._idle_connections
        connection = self._idle_connections.pop() if kept else PlainConnection(self._offer.url)
        await self._measure(kind, method, lambda method: self._send_plain(connection, method))
        if kind == "plain":
            self._idle_connections.append(connection)
        else:
            connection.close()

    async def _send_plain(self, connection: PlainConnection, method: str) -> tuple[int, str]:
        answer = await connection.send(self._plain_requests[method])
        return answer.status, answer.served_by

    async def _send_with(self, client: httpx.AsyncClient, method: str) -> tuple[int, str]:
        if method == "GET":
            response = await client.get("/ping")
        else:
            response = await client.post("/invocations", content=self._offer.body, headers=JSON_BODY)
        return response.status_code, response.headers.get("x-served-by", "")

    async def _keep_slow(self, client: httpx.AsyncClient) -> None:
        while not self._stopping.is_set():
            await self._measure("slow", "POST", lambda _: self._send_slow(client))

    async def _send_slow(self, client: httpx.AsyncClient) -> tuple[int, str]:
        if self._offer.slow_upload:
            length = {"Content-Length": str(len(self._offer.body))}
            content = upload_slowly(self._offer.body)
            response = await client.post("/invocations", content=content, headers=JSON_BODY | length)
        else:
            response = await client.post("/invocations", content=self._offer.slow_body, headers=JSON_BODY)
        return response.status_code, response.headers.get("x-served-by", "")

    async def _measure(self, kind: str, method: str, send: Send) -> None:
        began = time.monotonic()
        try:
            status, server = await send(method)
        except (httpx.HTTPError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.report.note_broken(kind, method, error)
        else:
            self.report.note(kind, method, status, server, time.monotonic() - began)


async def upload_slowly(body: bytes) -> AsyncIterator[bytes]:
    yield body[:1]
    await asyncio.sleep(SLOW_SECONDS)
    yield body[1:]


async def run_load(offer: Offer, requests: int) -> Report:
    load = Load(offer)
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, load.stop)
    return await load.run(requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--slow", type=int, default=4, help="slow requests in flight all the time")
    parser.add_argument("--body", default='{"inputs": [[1.0]]}')
    parser.add_argument("--slow-body", default=json.dumps({"sleep": SLOW_SECONDS}))
    parser.add_argument(
        "--slow-upload", action="store_true", help="slow requests send --body, taking two seconds over it"
    )
    given = parser.parse_args()
    offer = Offer(
        given.url, given.body.encode(), given.slow_body.encode(), given.rate, given.slow, given.slow_upload
    )
    json.dump(vars(asyncio.run(run_load(offer, given.requests))), sys.stdout)


if __name__ == "__main__":
    main()
