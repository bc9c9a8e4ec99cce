"""One server from its start to its end: cold starts, then every load in turn, then its memory."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.serving.servers import Asked, Server
from bench.serving.wrk import Point, choose_cores, fire
from tests.services.processes import ServiceProcess

LOADS = ((1, 1), (1, 8), (1, 64), (1000, 1), (1000, 8))  # rows a request, clients
WARM_SECONDS = 2
IDLE_PERCENT = 20  # of a core, over a quarter of a second
TOLERANCE = 1e-5  # the compiled model's, relative


@dataclass(frozen=True)
class Plan:
    seconds: int  # of load, for each point
    starts: int


@dataclass(frozen=True)
class Measured:
    points: dict[tuple[int, int], Point]
    starts: list[float]  # seconds
    mebibytes: float  # resident, of all its processes, after the loads

    def rate(self, rows: int, clients: int) -> float:
        return self.points[rows, clients].rate

    @property
    def start(self) -> float:
        return median(self.starts)


class Running:
    """A server on its core, and a client that knows what it has to answer."""

    def __init__(self, server: Server, asked: Asked, folder: Path) -> None:
        core, self._load_core = choose_cores()
        command = ["taskset", "-c", str(core), *server.command]
        self._process = ServiceProcess(command, server.environment, folder / "server.log")
        self._server, self._asked = server, asked

    def start(self) -> float:
        """Seconds from exec to the first correct prediction."""
        began = time.monotonic()
        self._process.start(self._is_ready)
        return time.monotonic() - began

    def stop(self) -> None:
        self._process.stop()

    def fire(self, rows: int, clients: int, seconds: int, url: str | None = None) -> Point:
        """What was asked before is waited for: a slow server goes on with requests that nobody waits for."""
        while sum(process.cpu_percent(0.25) for process in self._processes()) > IDLE_PERCENT:
            pass
        body = json.dumps(self._server.write(self._asked, rows)).encode()
        return fire(url or self._server.url, body, clients, seconds, self._load_core)

    def require_correct(self, rows: int) -> None:
        answer = self._ask(rows)
        if answer.status_code != 200 or not self._is_correct(answer.json(), rows):
            raise RuntimeError(f"{self._server.name} answered {answer.status_code}: {answer.text[:500]}")

    def resident(self) -> float:
        return float(sum(process.memory_info().rss for process in self._processes())) / 2**20

    def _processes(self) -> list[psutil.Process]:
        leader = psutil.Process(self._process.pid)
        return [leader, *leader.children(recursive=True)]

    def _ask(self, rows: int) -> httpx.Response:
        body = self._server.write(self._asked, rows)
        return httpx.post(self._server.url, json=body, timeout=60, trust_env=False, verify=False)  # noqa: S501

    def _is_ready(self) -> bool:
        try:
            answer = self._ask(1)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and self._is_correct(answer.json(), 1)

    def _is_correct(self, answer: Any, rows: int) -> bool:
        found = self._server.read(answer)
        if found is None:  # the floor predicts nothing
            return True
        pairs = zip(found, self._asked.predictions[:rows], strict=True)
        return all(math.isclose(one, other, rel_tol=TOLERANCE) for one, other in pairs)


@contextmanager
def run_server(server: Server, asked: Asked, folder: Path) -> Iterator[Running]:
    running = Running(server, asked, folder)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def measure(server: Server, asked: Asked, folder: Path, plan: Plan) -> Measured:
    with run_server(server, asked, folder) as running:  # the first start reads everything from the disk
        starts = []
        for _ in range(plan.starts):
            running.stop()
            starts.append(running.start())
        running.fire(1, 8, WARM_SECONDS)
        points = {}
        for rows, clients in LOADS:
            running.require_correct(rows)
            points[rows, clients] = running.fire(rows, clients, plan.seconds)
        return Measured(points, starts, running.resident())


def compare_proxied(
    running: Running, proxied_url: str, plan: Plan, clients: Sequence[int]
) -> list[tuple[int, Point, Point]]:
    """For each number of clients, directly and through the proxy."""
    return [
        (count, running.fire(1, count, plan.seconds), running.fire(1, count, plan.seconds, proxied_url))
        for count in clients
    ]
