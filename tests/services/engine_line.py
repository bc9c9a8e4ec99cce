"""A socket to the machine's engine that a test can cut: what an engine's restart looks like to its client.

For machines where a test may not run a dockerd of its own: no root, or the engine in a virtual machine.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from tests.services.engine import run_docker


class EngineLine:
    """With the calls of a PrivateEngine. What it holds is the machine's: tests name and remove their own."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.address = f"unix://{directory}/docker.sock"
        self._path = directory / "docker.sock"
        self._engine = engine
        self._listener: socket.socket | None = None
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def gateway(self) -> str:
        """The host, as containers on the default bridge see it."""
        subnet = self.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
        return str(ip_network(subnet)[1])

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(128)
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Refuses new connections and breaks those there are."""
        with self._lock:
            listener, self._listener = self._listener, None
            if listener is None:
                return
            self._path.unlink()
            for each in (listener, *self._connections):
                with suppress(OSError):  # its peer has gone already
                    each.shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    kill = delete = stop

    def docker(self, *arguments: str) -> str:
        return run_docker(self.address, *arguments)

    def take_image(self, image: str, source: str) -> None:
        """Nothing to do: every image of `source` is here, since it is the same engine."""

    def _run(self, work: Callable[..., None], *arguments: socket.socket) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)
        return thread

    def _accept(self, listener: socket.socket) -> None:
        with listener, suppress(OSError):  # `stop` shuts it down
            while True:
                self._run(self._serve, listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, connect(self._engine) as server:
            both = {client, server}
            with self._lock:
                if self._listener is None:
                    return
                self._connections |= both
            back = self._run(pump, server, client)
            pump(client, server)
            back.join()
            with self._lock:
                self._connections -= both


def pump(source: socket.socket, target: socket.socket) -> None:
    """Until `source` ends, which `target` is then told."""
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def connect(address: str) -> socket.socket:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(parts.path)
        return connection
    return socket.create_connection((parts.hostname or "localhost", parts.port or 2375))
