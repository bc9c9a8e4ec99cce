"""The state of the stack of `make demo`: in folders of SWITCHYARD_HOME."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import anyio

from router.core.errors import SwitchyardError
from router.settings import Settings
from scripts import archive
from scripts.archive import STORE
from scripts.background import find_marked
from scripts.stack import Stack
from scripts.stack_down import find_workloads, stop_all
from scripts.stack_error import StackError


class ProcessState:
    runtime = "process"
    start_command = "make demo"
    stop_command = "make down"

    def __init__(self) -> None:
        self._stack = Stack.from_environment()
        self._stack.check_settings()
        settings = Settings.load(self._stack.router().environment)
        if settings.slots_path != self._stack.state / "slots":
            raise StackError(f"SLOTS_PATH: only slots in {self._stack.state} are backed up and restored")
        ours = f"sqlite:///{self._stack.home / STORE}"
        self.store_url = "" if settings.store_url == ours else settings.store_url
        self.token = os.environ.get("SWITCHYARD_TOKEN", "")
        self.router_address = f"127.0.0.1:{self._stack.ports.router_port}"

    @contextmanager
    def turn(self) -> Iterator[None]:
        with self._stack.turn():
            yield

    def missing(self) -> str | None:
        return None if self._stack.state.is_dir() else f"there is no state in {self._stack.home}"

    def running(self) -> list[str]:
        services = [name for name in ("router", "caddy", "mlflow") if find_marked(self._stack.record(name))]
        try:
            return [*services, *anyio.run(self._workloads)]
        except SwitchyardError as error:
            raise StackError(f"servers and trainers may still run: {error.message}") from error

    async def _workloads(self) -> list[str]:
        async with find_workloads(self._stack) as (_, running):
            return [state.name for state in running]

    def pack(self, output: IO[bytes]) -> None:
        archive.pack(self.runtime, self._stack.home, output)

    def find_content(self) -> str | None:
        return archive.find_content(self.runtime, self._stack.home)

    def prepare(self) -> None:
        """Folders are made when they are filled."""

    def unpack(self, source: IO[bytes]) -> None:
        archive.unpack(self.runtime, self._stack.home, source)

    def lacks(self, serving: dict[str, Any]) -> str | None:
        return None  # its source has come with the archive

    def stop(self) -> None:
        stop_all(self._stack)

    def start(self) -> None:
        for line in self._stack.start():
            print(f"restore: {line}", flush=True)
