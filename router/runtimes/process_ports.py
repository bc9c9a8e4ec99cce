"""Ports for servers: an address names one server for as long as anything can name it.

Ports rotate through a range that the kernel does not hand out by itself, so that a port comes back as late
as possible: a proxy that still holds an old address meets nobody there, not somebody else's model.
"""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Set
from pathlib import Path

from router.core.errors import LaunchFailed

HOST = "127.0.0.1"


class Ports:
    """Blocking. `counter`: the file that remembers, across restarts, where the rotation stands."""

    def __init__(self, ports: range, counter: Path) -> None:
        self._ports = ports
        self._counter = counter

    def reserve(self, avoid: Set[str]) -> str:
        """The next address that nothing listens on and that is not one of `avoid`. Raises LaunchFailed."""
        self._counter.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            return self._take_next(file, avoid)
        finally:
            os.close(file)

    def _take_next(self, file: int, avoid: Set[str]) -> str:
        text = os.pread(file, 32, 0).strip()
        # A new rotation begins anywhere, so that two routers on one machine rarely meet.
        position = int(text) if text.isdigit() else secrets.randbelow(max(1, len(self._ports)))
        for step in range(len(self._ports)):
            port = self._ports[(position + step) % len(self._ports)]
            if f"{HOST}:{port}" not in avoid and is_free(port):
                # Of one length each time: overwriting in place needs no room on a full disk.
                os.pwrite(file, b"%-12d" % ((position + step + 1) % len(self._ports)), 0)
                os.fsync(file)
                return f"{HOST}:{port}"
        raise LaunchFailed(
            f"Each of the {len(self._ports)} ports for servers is taken or still named by an endpoint.",
            hint="Set PROCESS_PORTS to a wider range.",
        )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that only wait for their time to pass do not matter; a listener still does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            return False
        return True
