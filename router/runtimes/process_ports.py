"""Ports for servers, each given out again as late as possible: an address names one server for long."""

import errno
import fcntl
import os
import secrets
import socket
from pathlib import Path

from router.core.errors import LaunchFailed

HOST = "127.0.0.1"


class Ports:
    """The place in the range is kept on disk and starts anywhere, so that two routers seldom meet."""

    def __init__(self, ports: range, counter: Path) -> None:
        self._ports = ports
        self._counter = counter

    def choose(self, avoid: frozenset[str]) -> int:
        """A port that nobody listens on and no address to avoid has. Raises LaunchFailed if there is none."""
        self._counter.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            text = os.read(descriptor, 32).strip()
            last = int(text) if text.isdigit() else secrets.randbelow(len(self._ports))
            for step in range(1, len(self._ports) + 1):
                index = (last + step) % len(self._ports)
                port = self._ports[index]
                if f"{HOST}:{port}" not in avoid and is_free(port):
                    os.pwrite(descriptor, f"{index:<16}".encode(), 0)
                    return port
        finally:
            os.close(descriptor)
        raise LaunchFailed(
            f"no port between {self._ports[0]} and {self._ports[-1]} is free for a server",
            hint="set PROCESS_PORTS to a wider range",
        )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
        return True
