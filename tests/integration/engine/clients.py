"""Clients that ask all the time, each with at most one request under way, and what each of them met."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.services.yard import PLAIN, Yard

ANSWER_SECONDS = 60.0
SHORT = {"inputs": [[1.0]]}
SLOW_SECONDS = (1.0, 1.35, 1.7)  # different, so that at any moment one of them is in the middle of a request


@dataclass
class Client:
    name: str
    body: dict[str, Any]
    keeps_connection: bool
    served_by: list[str] = field(default_factory=list)  # ids of servers, in the order of the answers
    failures: list[str] = field(default_factory=list)

    def run(self, url: str, ended: threading.Event) -> None:
        limits = httpx.Limits(max_keepalive_connections=1 if self.keeps_connection else 0)
        with httpx.Client(base_url=url, limits=limits, **(PLAIN | {"timeout": ANSWER_SECONDS})) as session:
            while not ended.is_set():
                self.ask(session)

    def ask(self, session: httpx.Client) -> None:
        try:
            answer = session.post("/invocations", json=self.body)
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            return
        if answer.status_code == 200:
            self.served_by.append(answer.json()["server"])
        else:
            self.failures.append(f"{answer.status_code} {answer.text}")


@dataclass
class Clients:
    short: list[Client]
    slow: list[Client]

    @property
    def all(self) -> list[Client]:
        return self.short + self.slow

    def wait_until(self, yard: Yard, holds: Callable[[Client], bool], what: str) -> None:
        """Of every client."""
        yard.wait_for(lambda: all(holds(client) for client in self.all), what)


@contextmanager
def run_clients(yard: Yard) -> Iterator[Clients]:
    """All answered once when the block begins; what they met is complete when it has ended."""
    clients = Clients(
        short=[Client("new connections", SHORT, False), Client("one connection", SHORT, True)],
        slow=[Client(f"slow {seconds}", SHORT | {"sleep": seconds}, True) for seconds in SLOW_SECONDS],
    )
    ended = threading.Event()
    with ExitStack() as stack:
        for client in clients.all:
            thread = threading.Thread(target=client.run, args=(yard.public_url, ended))
            thread.start()
            stack.callback(thread.join)
        stack.callback(ended.set)
        clients.wait_until(yard, lambda client: bool(client.served_by or client.failures), "first answers")
        yield clients
