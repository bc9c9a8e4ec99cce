"""A real MLflow server on SQLite with served artifacts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from scripts.service_commands import mlflow_command, mlflow_environment
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess


class MlflowServer:
    """One server with its own database; stopped and started again it keeps its port and its data."""

    def __init__(self, directory: Path, allowed_hosts: Sequence[str] = ()) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        hosts = [f"127.0.0.1:{self.port}", f"localhost:{self.port}", *allowed_hosts]
        command = mlflow_command(directory, "127.0.0.1", self.port, hosts)
        self._process = ServiceProcess(command, mlflow_environment(), directory / "mlflow.log")

    @property
    def log(self) -> Path:
        return self._process.log

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> None:
        self._process.start(self._answers)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def _answers(self) -> bool:
        """Asked fifty times a second, so without a client that takes long to make."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def run_mlflow_server(directory: Path, allowed_hosts: Sequence[str] = ()) -> Iterator[MlflowServer]:
    """`allowed_hosts` are Host headers it accepts besides its own address on the loopback."""
    server = MlflowServer(directory, allowed_hosts)
    try:
        server.start()
        yield server
    finally:
        server.stop()
