"""Ports for services that must be told theirs before they listen."""

import itertools
import os
import secrets
import socket
from collections.abc import Iterator

# Outside of what the kernel gives to connections: a port stays free while its service is being restarted.
FIRST, LAST = 10_000, 17_999
WORKSHOP_PORTS = 18_000, 19_999  # for servers of a runtime that is tried alone


def choose_mine(first: int, last: int) -> range:
    """This xdist worker's part of a range of ports."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (last + 1 - first) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(first + worker * size, first + (worker + 1) * size)


def _rotate() -> Iterator[int]:
    """From anywhere, so that two checkouts that are tested side by side rarely meet."""
    mine = choose_mine(FIRST, LAST)
    begin = secrets.randbelow(len(mine))
    return itertools.cycle([*mine[begin:], *mine[:begin]])


_rotation = _rotate()


def find_free_port() -> int:
    """A loopback TCP port that nothing listens on now, and that comes back as late as possible."""
    return next(port for port in _rotation if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
