"""A real Caddy with its admin API on a unix socket."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.service_commands import caddy_command, caddy_environment
from tests.services.processes import ServiceProcess


class Caddy:
    """Started from a config file that names `admin_socket`; `start` after `stop` or `kill` reads it again."""

    def __init__(self, config: Path, admin_socket: Path, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.admin_socket = admin_socket
        self._process = ServiceProcess(
            caddy_command(config), caddy_environment(directory), directory / "caddy.log"
        )

    @property
    def log(self) -> Path:
        return self._process.log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> None:
        """Returns when the admin API answers, which is after the config's own listeners are open."""
        self._process.start(self._answers)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        """Caddy holds its answer back until the config is loaded; before that nobody accepts."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(self.admin_socket))
                connection.sendall(b"GET /config/apps HTTP/1.0\r\nHost: caddy\r\n\r\n")
                return connection.recv(64).startswith(b"HTTP/1.0 200")
            except OSError:
                return False


@contextmanager
def run_caddy(config: Path, admin_socket: Path, directory: Path) -> Iterator[Caddy]:
    caddy = Caddy(config, admin_socket, directory)
    try:
        caddy.start()
        yield caddy
    finally:
        caddy.stop()


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory for unix sockets: their paths may have 104 characters at most, pytest's are longer."""
    directory = Path(tempfile.mkdtemp(prefix="sw-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
