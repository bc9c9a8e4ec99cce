"""Trainers and servers as child processes of nobody: they outlive the router and are found again by it.

Beside each stands a shim (`process_shim`), which tells how it ended; what is known of it lies in its home
(`process_homes`). This module is the port: it launches them, hears of their ends, and stops them.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import psutil
from anyio import CapacityLimiter, to_thread

from router.core.errors import InvalidRequest, RuntimeUnavailable, StorageFull, UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import WorkloadState
from router.runtimes.base import EndCallback, Image, Usage, Workload
from router.runtimes.process_cgroups import Cgroups
from router.runtimes.process_environments import Environments
from router.runtimes.process_homes import GONE, Home, list_homes
from router.runtimes.process_launch import FULL, Launcher
from router.runtimes.process_leftovers import end_leftovers
from router.runtimes.process_ports import Ports
from router.runtimes.process_sources import Sources
from router.runtimes.process_watch import Watch, watch_process

THREADS = 16
KILL_SECONDS = 10.0  # until a shim that does not carry out a kill is killed itself
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

T = TypeVar("T")


@dataclass(frozen=True)
class Watched:
    watch: Watch
    ended: asyncio.Event


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
        state = state.absolute()
        self._homes = state / "workloads"
        self._sources = Sources(project_root, state / "sources")
        self._cgroups = Cgroups(f"switchyard-{sha256(str(state).encode()).hexdigest()[:8]}")
        self._launcher = Launcher(
            sources=self._sources,
            environments=Environments(state / "environments", build_environment),
            ports=Ports(ports, state / "next-port"),
            cgroups=self._cgroups,
            environment=environment,
        )
        self._threads = CapacityLimiter(THREADS)
        self._callbacks: list[EndCallback] = []
        self._watched: dict[str, Watched] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._in_thread(self._clean_up)
        for state in await self.list_owned():
            if state.running and self._watch(state.owner) is None:
                self._settle_soon(state.owner, asyncio.Event())

    async def close(self) -> None:
        for watched in self._watched.values():
            watched.watch.close()
        self._watched.clear()
        self._callbacks.clear()
        await asyncio.gather(*self._ending)

    async def check(self) -> None:
        if not await self._in_thread(lambda: os.access(self._homes, os.W_OK)):
            raise RuntimeUnavailable(f"{self._homes} cannot be written.")

    async def resolve_image(self, reference: str) -> Image:
        return await self._in_thread(lambda: self._sources.resolve(reference))

    async def refuse_unsupported(self, resources: Resources, gpus: str | None) -> None:
        if gpus is not None:
            raise UnsupportedSetting(
                "gpus cannot be honoured: processes share every GPU of the machine.",
                hint="Leave `gpus` out under RUNTIME=process, where trainers see all of them.",
            )
        await self._in_thread(lambda: self._cgroups.refuse_unsupported(resources))

    async def launch(self, workload: Workload) -> WorkloadState:
        home = self._home(workload.owner)
        if workload.gpus is not None:
            await self.refuse_unsupported(Resources(), workload.gpus)
        state = await self._in_thread(lambda: self._launcher.launch(home, workload))
        if not state.running or self._watch(workload.owner) is not None:
            return state
        self._settle_soon(workload.owner, asyncio.Event())  # it has ended already
        return await self._in_thread(home.state) or state

    async def inspect(self, owner: str) -> WorkloadState | None:
        return await self._in_thread(self._home(owner).state)

    async def list_owned(self) -> list[WorkloadState]:
        def read_all() -> list[WorkloadState]:
            states = (home.state() for home in list_homes(self._homes))
            return [state for state in states if state is not None]

        return await self._in_thread(read_all)

    async def usage(self, owner: str) -> Usage | None:
        return await self._in_thread(lambda: measure_usage(self._home(owner)))

    async def logs(self, owner: str, tail_bytes: int) -> str:
        return await self._in_thread(lambda: self._home(owner).read_logs(tail_bytes))

    async def stop(self, owner: str, grace_seconds: float) -> None:
        ended = self._send(owner, signal.SIGTERM)
        if ended is not None and not await happens_within(ended, grace_seconds):
            await self._kill(owner)

    async def remove(self, owner: str) -> None:
        home = self._home(owner)
        await self._kill(owner)
        await self._in_thread(lambda: self._delete(home))

    def on_end(self, callback: EndCallback) -> None:
        self._callbacks.append(callback)

    # --- ends -------------------------------------------------------------------------------------------

    def _watch(self, owner: str) -> Watched | None:
        """None: it does not run."""
        if owner in self._watched:
            return self._watched[owner]
        home = self._home(owner)
        shim = home.shim()
        if shim is None:
            return None
        watch = watch_process(shim, home.is_alive, partial(self._hear_end, owner))
        if watch is not None:
            self._watched[owner] = Watched(watch, asyncio.Event())
        return self._watched.get(owner)

    def _hear_end(self, owner: str) -> None:
        self._settle_soon(owner, self._watched.pop(owner).ended)

    def _settle_soon(self, owner: str, ended: asyncio.Event) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(owner, ended))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _settle(self, owner: str, ended: asyncio.Event) -> None:
        """Its end is told once nothing of it is left."""
        try:
            await self._in_thread(lambda: settle(self._home(owner)))
        finally:
            ended.set()
            for callback in self._callbacks:
                callback(owner)

    def _send(self, owner: str, number: int) -> asyncio.Event | None:
        """Signal its shim. Returns its end, to be awaited; None if it does not run."""
        watched = self._watch(owner)
        if watched is None:
            return None
        with suppress(ProcessLookupError):  # it ends just now; the loop is about to hear of it
            watched.watch.send(number)
        return watched.ended

    async def _kill(self, owner: str) -> None:
        ended = self._send(owner, signal.SIGUSR1)
        if ended is None or await happens_within(ended, KILL_SECONDS):
            return
        # A shim that is itself stopped or stuck: its end is the child's end, and leaves the rest to us.
        self._send(owner, signal.SIGKILL)
        await ended.wait()

    # --- blocking ---------------------------------------------------------------------------------------

    def _clean_up(self) -> None:
        """What a router that was killed has left half done: deletions, launches, ends of lost workloads."""
        self._homes.mkdir(parents=True, exist_ok=True)
        for path in self._homes.glob(f"{GONE}*"):
            shutil.rmtree(path)
        for home in list_homes(self._homes):
            with home.launching():
                if home.state() is None:
                    self._discard(home)
            settle(home)

    def _delete(self, home: Home) -> None:
        if not home.path.exists():
            return
        with home.launching():
            settle(home)
            self._discard(home)

    def _discard(self, home: Home) -> None:
        order = home.read_order()
        recorded = map(Path, order.groups) if order is not None else ()
        self._cgroups.remove({*self._cgroups.paths(home.path.name), *recorded})
        home.delete()

    def _home(self, owner: str) -> Home:
        if not OWNER.fullmatch(owner):
            raise InvalidRequest(f"{owner!r} cannot name a trainer or server.")
        return Home(self._homes / owner)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await to_thread.run_sync(function, limiter=self._threads)
        except OSError as error:
            if error.errno in FULL:
                raise StorageFull(
                    f"The disk of {self._homes.parent} is full. Nothing was started."
                ) from error
            raise RuntimeUnavailable(f"Processes cannot be looked after: {error}.") from error


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def settle(home: Home) -> None:
    """After the end: end what a killed shim could not end, and let go of a shim that became our child."""
    order, shim = home.read_order(), home.shim()
    if order is None or shim is None:
        return
    if home.is_lost():
        end_leftovers(home.path, map(Path, order.groups))
    with suppress(ChildProcessError):  # it is our child only if orphans fall to us, as to a container's pid 1
        os.waitpid(shim, os.WNOHANG)


def measure_usage(home: Home) -> Usage | None:
    shim = home.shim()
    if shim is None or not home.is_alive():
        return None
    memory, cpu = 0, 0.0
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(shim).children(recursive=True):
            with suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
                cpu += times.user + times.system + times.children_user + times.children_system
    return Usage(memory, cpu)
