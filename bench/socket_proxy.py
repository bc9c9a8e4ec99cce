"""What the socket proxy costs: what it adds to a call to Docker, and its memory with many logs followed."""

import argparse
import http.client
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil

from bench.figures import percentile, print_heading, print_table, say
from tests.integration.docker.installation import JSON, Installation, open_installation
from tests.services.engine import ensure_engine
from tests.services.socket_proxy import SocketProxy, read_until, run_socket_proxy

STREAMS = 50
MEGABYTES = 16  # of the log that all of them read at once
MEBIBYTE = 1024 * 1024
DEADLINE_SECONDS = 60
WANTED_MS, WANTED_MIB = 5.0, 80

Ask = Callable[[http.client.HTTPConnection], None]


class DirectConnection(http.client.HTTPConnection):
    def __init__(self, docker_socket: Path) -> None:
        super().__init__("docker")
        self._docker_socket = docker_socket

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._docker_socket))


def ask(connection: http.client.HTTPConnection, method: str, target: str, body: str | None = None) -> bytes:
    connection.request(method, target, body=body, headers=JSON if body else {})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {target} was answered {answer.status}: {content.decode()}")
    return content


def calls(installation: Installation, running: str) -> dict[str, Ask]:
    """The same for both ways, so what is created directly is what the proxy would have made of it."""
    creation = json.dumps(
        installation.creation() | {"Labels": installation.creation()["Labels"] | installation.label}
    )

    def create_and_remove(connection: http.client.HTTPConnection) -> None:
        target = f"/v1.41/containers/create?name={installation.new_name()}"
        made = json.loads(ask(connection, "POST", target, creation))["Id"]
        ask(connection, "DELETE", f"/v1.41/containers/{made}")

    def get(target: str) -> Ask:
        return lambda connection: (ask(connection, "GET", target), None)[1]

    return {
        "GET /_ping": get("/_ping"),
        "GET /containers/json": get("/v1.41/containers/json?all=1"),
        "GET /containers/ID/json": get(f"/v1.41/containers/{running}/json"),
        "GET /containers/ID/logs": get(f"/v1.41/containers/{running}/logs?stdout=1"),
        "POST /containers/create, DELETE": create_and_remove,
    }


def measure(call: Ask, ways: list[http.client.HTTPConnection], times: int) -> list[list[float]]:
    """Milliseconds for each way, in turn, so that both meet the same moments of the machine."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(times):
        for way, kept in zip(ways, taken, strict=True):
            began = time.perf_counter()
            call(way)
            kept.append((time.perf_counter() - began) * 1000)
    return taken


def compare_calls(installation: Installation, proxy: SocketProxy, times: int) -> bool:
    running = installation.launch()
    ways = [DirectConnection(installation.socket), http.client.HTTPConnection("127.0.0.1", proxy.port)]
    rows, added = [], []
    for name, call in calls(installation, str(running.id)).items():
        direct, proxied = measure(call, ways, times if name.startswith("GET") else max(1, times // 10))
        added.append(median(proxied) - median(direct))
        figures = [f"{median(each):.2f} / {percentile(each, 99):.2f} ms" for each in (direct, proxied)]
        rows.append([f"`{name}`", len(direct), *figures, f"+{added[-1]:.2f} ms"])
    for way in ways:
        way.close()
    print_table(("call", "times", "direct, p50 / p99", "proxied, p50 / p99", "added, p50"), rows)
    return max(added[:-1]) < WANTED_MS and added[-1] < 2 * WANTED_MS  # the last are two calls


def hold_streams(installation: Installation, proxy: SocketProxy) -> bool:
    memory = psutil.Process(proxy.pid).memory_info
    talking, flooding = installation.launch(), installation.launch(MEGABYTES=str(MEGABYTES), EXIT_CODE="0")
    # A follower that is slow while the log is rotated can be forgotten by Docker 20.10: let it end first.
    flooding.wait()
    seen = [memory().rss]
    with open_streams(proxy, f"/v1.41/containers/{talking.id}/logs?follow=1&stdout=1") as answers:
        seen.append(memory().rss)
        for _ in range(20):
            talking.kill("SIGUSR1")
            for answer in answers:
                read_until(answer, b"poked\n")
        seen.append(memory().rss)
    with open_streams(proxy, f"/v1.41/containers/{flooding.id}/logs?stdout=1") as answers:
        for answer in answers:  # while one is read, the others stand still
            answer.read()
            seen.append(memory().rss)
    columns = [
        "resident",
        "before",
        f"{STREAMS} followed",
        "20 lines later",
        f"{STREAMS} of {MEGABYTES} MiB, most",
    ]
    shown = [*seen[:3], max(seen[3:])]
    print()
    print_table(columns, [["socket proxy", *(f"{size / MEBIBYTE:.0f} MiB" for size in shown)]])
    return max(seen) < WANTED_MIB * MEBIBYTE


@contextmanager
def open_streams(proxy: SocketProxy, target: str) -> Iterator[list[http.client.HTTPResponse]]:
    with ExitStack() as stack:
        answers = []
        for _ in range(STREAMS):
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE_SECONDS)
            stack.callback(connection.close)
            connection.request("GET", target)
            answers.append(stack.enter_context(connection.getresponse()))
        yield answers


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--times", type=int, default=500)
    given = parser.parse_args()
    print_heading(
        f"socket proxy: {given.times} calls each, direct and proxied in turn; {STREAMS} log streams"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        installation = stack.enter_context(open_installation(ensure_engine(), folder))
        proxy = stack.enter_context(
            run_socket_proxy(installation.socket, folder / "log", **installation.settings())
        )
        say("comparing calls")
        quick = compare_calls(installation, proxy, given.times)
        say("holding streams")
        small = hold_streams(installation, proxy)
    print(f"\nwanted: under {WANTED_MS:.0f} ms added to a call: {'reached' if quick else 'MISSED'};", end=" ")
    print(f"under {WANTED_MIB} MiB: {'reached' if small else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
