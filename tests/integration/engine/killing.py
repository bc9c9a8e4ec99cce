"""Kills: of a router on its way through a call, which the client then repeats; of a server."""

import os
import signal
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import httpx

from tests.integration.engine.aftermath import find_processes
from tests.integration.spine.stage import child_pid
from tests.services.yard import Yard


class Router(Protocol):
    def call(self, method: str, path: str, body: object = None, **options: Any) -> httpx.Response: ...


class Call:
    """One call that changes something, made harmless to repeat by its key."""

    def __init__(self, path: str, body: dict[str, Any] | None = None) -> None:
        self.path = path
        self.body = body or {}
        self._key = {"Idempotency-Key": uuid.uuid4().hex}

    def send(self, router: Router) -> httpx.Response:
        return router.call("POST", self.path, self.body, headers=self._key)


def kill_router_at(yard: Yard, point: str, *acts: Callable[[Yard], object]) -> None:
    """Have the router die at this point (see `crashing_router`) of what the acts set going."""
    yard.crash_router_at(point)
    for act in acts:
        with suppress(httpx.TransportError):
            act(yard)
    yard.wait_for_crash()


def kill_server(yard: Yard, server_id: str) -> None:
    os.kill(child_pid(yard, server_id), signal.SIGKILL)


def reboot(yard: Yard) -> None:
    """Everything that runs ends at once, without a chance to say so; router and Caddy come back."""
    yard.router.kill()
    yard.caddy.kill()
    while processes := find_processes(yard):
        # A power cut lets nobody tell how another one ended: all are stopped before the first of them dies.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
    yard.crash_point.unlink(missing_ok=True)
    yard.start()
