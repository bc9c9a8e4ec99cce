"""Trainers and servers as child processes of nobody: they outlive the router and are found again by it.

Beside each stands a shim (`process_shim`), which tells how it ended; what is known of it lies in its home
(`process_homes`). This module launches them, hears of their ends from the kernel, and stops them.
"""

import asyncio
import errno
import marshal
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import psutil
from anyio import CapacityLimiter, to_thread

from router.core.errors import LaunchFailed, RuntimeUnavailable, StorageFull, UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import Role, WorkloadState
from router.runtimes.base import EndCallback, Image, Usage, Workload
from router.runtimes.process_cgroups import Cgroups
from router.runtimes.process_environments import Environments, base_interpreter
from router.runtimes.process_homes import Home, Order
from router.runtimes.process_ports import HOST, Ports
from router.runtimes.process_sources import Source, Sources

SHIM = Path(__file__).with_name("process_shim.py")
LOG_BYTES = 4 * 1024 * 1024  # of each of the two log files that a workload has at most
THREADS = 16
FULL = {errno.ENOSPC, errno.EDQUOT}

T = TypeVar("T")


class ProcessRuntime:
    def __init__(
        self,
        *,
        state: Path,
        project_root: Path,
        ports: range,
        environment: Mapping[str, str],
        build_environment: Mapping[str, str],
    ) -> None:
        """`environment` is what every child inherits; `build_environment` what installing packages needs."""
        self._homes = state / "workloads"
        self._environment = dict(environment)
        self._sources = Sources(project_root, state / "sources")
        self._environments = Environments(state / "environments", build_environment)
        self._ports = Ports(ports, state / "next-port")
        name = f"switchyard-{sha256(str(state.resolve()).encode()).hexdigest()[:12]}"
        self._cgroups = Cgroups(name)
        self._threads = CapacityLimiter(THREADS)
        self._callbacks: list[EndCallback] = []
        self._watched: dict[str, tuple[int, asyncio.Event]] = {}  # owner -> pidfd of its shim, its end

    async def start(self) -> None:
        await self._in_thread(lambda: self._homes.mkdir(parents=True, exist_ok=True))
        for state in await self.list_owned():
            if state.running:
                await self._watch(state.owner)

    async def close(self) -> None:
        for owner in list(self._watched):
            self._forget(owner)
        self._callbacks.clear()

    async def check(self) -> None:
        def check() -> None:
            if not os.access(self._homes, os.W_OK):
                raise RuntimeUnavailable(f"{self._homes} cannot be written")

        await self._in_thread(check)

    async def resolve_image(self, reference: str) -> Image:
        return await self._in_thread(lambda: self._sources.resolve(reference))

    async def refuse_unsupported(self, resources: Resources, gpus: str | None) -> None:
        if gpus is not None:
            raise UnsupportedSetting(
                "gpus cannot be honoured: processes share every GPU of the machine",
                hint="leave `gpus` out under RUNTIME=process, where trainers see all of them",
            )
        self._cgroups.refuse_unsupported(resources)

    async def launch(self, workload: Workload) -> WorkloadState:
        await self.refuse_unsupported(workload.resources, workload.gpus)
        state = await self._in_thread(lambda: self._launch(workload))
        if state.running:
            await self._watch(workload.owner)
        return state

    async def inspect(self, owner: str) -> WorkloadState | None:
        return await self._in_thread(self._home(owner).state)

    async def list_owned(self) -> list[WorkloadState]:
        def read_all() -> list[WorkloadState]:
            homes = sorted(self._homes.iterdir()) if self._homes.exists() else []
            states = (Home(path).state() for path in homes)
            return [state for state in states if state is not None]

        return await self._in_thread(read_all)

    async def usage(self, owner: str) -> Usage | None:
        return await self._in_thread(lambda: self._usage(self._home(owner)))

    async def logs(self, owner: str, tail_bytes: int) -> str:
        return await self._in_thread(lambda: self._home(owner).read_logs(tail_bytes))

    async def stop(self, owner: str, grace_seconds: float) -> None:
        ended = await self._signal(owner, signal.SIGTERM)
        if ended is None:
            return
        try:
            await asyncio.wait_for(ended.wait(), grace_seconds)
        except TimeoutError:
            await self._kill(owner)

    async def remove(self, owner: str) -> None:
        await self._kill(owner)
        await self._in_thread(self._home(owner).delete)
        await self._in_thread(lambda: self._cgroups.remove(owner))

    def on_end(self, callback: EndCallback) -> None:
        self._callbacks.append(callback)

    # --- launching --------------------------------------------------------------------------------

    def _launch(self, workload: Workload) -> WorkloadState:
        home = self._home(workload.owner)
        with home.launching() as lock:
            state = home.state()
            if state is not None:
                return state
            source = self._sources.open(workload.image)
            interpreter = self._environments.interpreter(source.lock)
            port = self._ports.choose(workload.avoid_addresses) if workload.role is Role.SERVER else None
            groups = self._cgroups.create(workload.owner, workload.resources)
            home.write_order(
                Order(
                    owner=workload.owner,
                    name=workload.name,
                    role=workload.role,
                    digest=source.digest,
                    address=f"{HOST}:{port}" if port else None,
                    groups=tuple(map(str, groups)),
                )
            )
            folder = home.path / "work"
            shutil.copytree(source.folder, folder, dirs_exist_ok=True)
            (home.path / "tmp").mkdir(exist_ok=True)
            order = {
                "home": str(home.path),
                "directory": str(folder),
                "command": self._command(workload, source, interpreter),
                "env": self._child_environment(workload, source, interpreter, home, port),
                "log_bytes": LOG_BYTES,
                "groups": [str(group) for group in groups],
                "launch_lock": lock,
            }
            start_shim(order, workload.name)
        state = home.state()
        if state is None:
            raise LaunchFailed(f"{workload.name} was started and left no trace")
        return state

    @staticmethod
    def _command(workload: Workload, source: Source, interpreter: Path) -> list[str]:
        part = "train" if workload.role is Role.TRAINER else "serve"
        command = list(source.train if workload.role is Role.TRAINER else source.serve)
        if not command:
            raise LaunchFailed(f"{workload.image.reference}/source.toml does not say how to `{part}`")
        if command[0] in {"python", "python3"}:
            command[0] = str(interpreter)
        return command

    def _child_environment(
        self, workload: Workload, source: Source, interpreter: Path, home: Home, port: int | None
    ) -> dict[str, str]:
        """The machine's, the source's, the workload's, in this order of growing weight; then the address."""
        path = self._environment.get("PATH", os.defpath)
        env = {
            **self._environment,
            "PATH": f"{interpreter.parent}{os.pathsep}{path}",
            "TMPDIR": str(home.path / "tmp"),
            "PYTHONPATH": os.pathsep.join(map(str, source.import_path)),
            "PYTHONUNBUFFERED": "1",
            **workload.env,
        }
        if source.lock is not None:
            env["VIRTUAL_ENV"] = str(interpreter.parent.parent)
        if port is not None:
            env |= {"SERVE_PORT": str(port), "SERVE_HOST": HOST}
        return env

    # --- watching and ending ------------------------------------------------------------------------

    async def _watch(self, owner: str) -> asyncio.Event | None:
        """The event of its end, which the kernel tells through a descriptor; None if it has ended."""
        if owner in self._watched:
            return self._watched[owner][1]
        home = self._home(owner)
        shim = await self._in_thread(home.shim)
        if shim is None:
            return None
        try:
            descriptor = os.pidfd_open(shim)
        except ProcessLookupError:
            self._tell_end(owner)
            return None
        if owner in self._watched:  # somebody else was here while we read
            os.close(descriptor)
            return self._watched[owner][1]
        ended = asyncio.Event()
        self._watched[owner] = (descriptor, ended)
        asyncio.get_running_loop().add_reader(descriptor, self._hear_end, owner)
        # The pid may have been another's by the time it was opened; the lock cannot.
        if not await self._in_thread(home.is_alive):
            self._hear_end(owner)
            return None
        return ended

    def _hear_end(self, owner: str) -> None:
        if owner in self._watched:
            ended = self._watched[owner][1]
            self._forget(owner)
            ended.set()
            self._tell_end(owner)

    def _forget(self, owner: str) -> None:
        descriptor, _ = self._watched.pop(owner)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)

    def _tell_end(self, owner: str) -> None:
        for callback in self._callbacks:
            callback(owner)

    async def _signal(self, owner: str, number: int) -> asyncio.Event | None:
        """Its end, to be awaited; None if it has ended."""
        ended = await self._watch(owner)
        if ended is None or owner not in self._watched:
            return None
        try:
            signal.pidfd_send_signal(self._watched[owner][0], number)
        except ProcessLookupError:
            return ended  # it ends just now; the loop is about to hear of it
        return ended

    async def _kill(self, owner: str) -> None:
        ended = await self._signal(owner, signal.SIGUSR1)
        if ended is not None:
            await ended.wait()

    def _usage(self, home: Home) -> Usage | None:
        order, shim = home.read_order(), home.shim()
        if order is None or shim is None:
            return None
        memory, cpu = 0, 0.0
        try:
            for process in psutil.Process(shim).children(recursive=True):
                with process.oneshot():
                    memory += process.memory_info().rss
                    times = process.cpu_times()
                    cpu += times.user + times.system
        except psutil.NoSuchProcess:
            return None
        return Usage(self._cgroups.memory_bytes(map(Path, order.groups)) or memory, cpu)

    def _home(self, owner: str) -> Home:
        return Home(self._homes / owner)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(function, limiter=self._threads)
        except OSError as error:
            if error.errno in FULL:
                raise StorageFull(f"the disk of {self._homes.parent} is full; nothing was started") from error
            raise RuntimeUnavailable(f"a process cannot be looked after: {error}") from error


def start_shim(order: dict[str, object], name: str) -> None:
    """Returns when the child runs. Raises LaunchFailed with the reason if it does not."""
    lock = order["launch_lock"]
    assert isinstance(lock, int)
    command = [str(base_interpreter()), "-I", "-S", str(SHIM)]
    with (Path(str(order["home"])) / "shim.log").open("wb") as errors:
        done = subprocess.run(
            command,
            input=marshal.dumps(order),
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(lock,),
            check=False,
        )
    answer = done.stdout.decode("utf-8", "replace")
    if answer == "started":
        return
    kind, _, reason = answer.partition(" ")
    number, _, text = reason.partition(" ")
    if kind == "failed" and number.isdigit() and int(number) in FULL:
        raise StorageFull(f"the disk is full; {name} was not started")
    raise LaunchFailed(f"{name} cannot be started: {text if kind == 'failed' else reason or 'no answer'}")
