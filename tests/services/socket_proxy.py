"""The socket proxy as a process on a loopback port, before a real Docker engine."""

import http.client
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.service_commands import ROOT
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess

DEADLINE_SECONDS = 30


class SocketProxy(ServiceProcess):
    def __init__(self, docker_socket: Path, log: Path, settings: dict[str, str]) -> None:
        self.port = find_free_port()
        self.url = f"tcp://127.0.0.1:{self.port}"
        environment = {f"SOCKET_PROXY_{name.upper()}": value for name, value in settings.items()}
        environment |= {
            "SOCKET_PROXY_DOCKER_SOCKET": str(docker_socket),
            "SOCKET_PROXY_PORT": str(self.port),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "socket-proxy"),
        }
        super().__init__([sys.executable, "-m", "socket_proxy"], environment, log)

    def answers(self) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            answer.read()
            return answer.status == http.client.OK
        except OSError:
            return False
        finally:
            connection.close()

    def send(self, request: bytes) -> bytes:
        """Raw bytes; everything that comes back until the proxy closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            connection.request(method, target, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def read_until(stream: http.client.HTTPResponse, ending: bytes) -> None:
    """Takes what comes, in whatever pieces; what comes last must be `ending`."""
    tail = b""
    while not tail.endswith(ending):
        piece = stream.read1()
        if not piece:
            raise EOFError(f"the stream has ended without {ending!r}")
        tail = (tail + piece)[-len(ending) :]


@contextmanager
def run_socket_proxy(docker_socket: Path, log: Path, **settings: str) -> Iterator[SocketProxy]:
    proxy = SocketProxy(docker_socket, log, settings)
    proxy.start(proxy.answers)
    try:
        yield proxy
    finally:
        proxy.stop()
