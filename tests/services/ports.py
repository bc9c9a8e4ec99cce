"""Ports for services that must be told theirs before they listen."""

import socket


def find_free_port() -> int:
    """A loopback TCP port that nothing listens on now.

    The kernel hands out ephemeral ports in random order, so two workers that ask at once get different ones.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
