"""A scoring server as a child process: ours, or MLflow's own to compare with."""

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess


class ModelServer:
    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        environment: Callable[[int], Mapping[str, str]],
        directory: Path,
        *,
        await_answers: bool = True,
        ping: str = "/ping",
    ) -> None:
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._await_answers = await_answers
        self._ping = ping
        self._process = ServiceProcess(command(self.port), environment(self.port), directory / "server.log")

    def __enter__(self) -> Self:
        self._process.start(self._answers if self._await_answers else lambda: True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.stop()

    @property
    def log(self) -> str:
        return self._process.log.read_text()

    @property
    def running(self) -> bool:
        return self._process.running

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def listening(self) -> bool:
        with socket.socket() as connection:
            refused: int = connection.connect_ex(("127.0.0.1", self.port))
            return refused == 0

    def terminate(self) -> None:
        os.kill(self._process.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """The exit status; a signal's number is negative."""
        return self._process.wait(seconds)

    def invoke(self, body: bytes, content_type: str | None = "application/json") -> httpx.Response:
        headers = {} if content_type is None else {"content-type": content_type}
        return self.client.post("/invocations", content=body, headers=headers)

    def _answers(self) -> bool:
        try:
            return self.client.get(self._ping).status_code == 200
        except httpx.TransportError:
            return False
