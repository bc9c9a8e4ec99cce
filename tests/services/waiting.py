"""Waiting for what only a look can tell."""

import time
from collections.abc import Callable

import httpx

LOOK_SECONDS = 0.05


def wait_for(holds: Callable[[], bool], what: str, seconds: float, log_tail: Callable[[], str]) -> None:
    """Look until it holds; a service that does not answer yet does not hold. The deadline is generous, and
    after it the router's log is shown."""
    deadline = time.monotonic() + seconds
    while not _holds(holds):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about; the router says:\n{log_tail()}")
        time.sleep(LOOK_SECONDS)


def _holds(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except httpx.TransportError:
        return False
