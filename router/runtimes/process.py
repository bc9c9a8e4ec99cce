"""Trainers and servers as child processes of nobody: they outlive the router and are found again by it.

Beside each stands a shim (`process_shim`), which tells how it ended; what is known of it lies in its home
(`process_homes`). This module is the port: who may call when, and what is awaited.
"""

import asyncio
import os
import signal
from collections.abc import Collection, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path

import psutil
import structlog
from anyio import CancelScope

from router.core.errors import RuntimeUnavailable, SwitchyardError, UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import WorkloadState
from router.runtimes.base import EndCallback, Image, Memory, Tell, Usage, Workload
from router.runtimes.machine import read_machine_memory
from router.runtimes.process_cgroups import Cgroups, read_memory
from router.runtimes.process_environments import Environments
from router.runtimes.process_homes import Home, Homes
from router.runtimes.process_launch import Launcher
from router.runtimes.process_ports import Ports
from router.runtimes.process_removal import clear_leftovers, remove_workload, settle
from router.runtimes.process_sources import Sources
from router.runtimes.process_threads import Threads
from router.runtimes.process_watch import Watch, take_hold
from router.runtimes.waiting import happens_within

KILL_SECONDS = 10.0  # until a shim that does not carry out a kill is killed itself

log = structlog.get_logger()


class ProcessRuntime:
    def __init__(
        self,
        *,
        state: Path,
        project_root: Path,
        ports: range,
        environment: Mapping[str, str],
        build_environment: Mapping[str, str],
        cgroups: Cgroups | None = None,
    ) -> None:
        """`environment` is what every child inherits; `build_environment` what installing packages needs."""
        state = state.absolute()
        self._threads = Threads(state)
        self._homes = Homes(state / "workloads")
        self._sources = Sources(project_root, state / "sources")
        self._environments = Environments(state / "environments", build_environment, self._threads)
        self._cgroups = cgroups or Cgroups(f"switchyard-{sha256(str(state).encode()).hexdigest()[:8]}")
        self._launcher = Launcher(self._homes, self._cgroups, Ports(ports, state / "next-port"), environment)
        self._watch = Watch(self._hear_end)
        self._callbacks: list[EndCallback] = []
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self._threads.work(self._prepare)
        for state in await self.list_owned():
            await self._adopt(state)

    def _prepare(self) -> None:
        self._homes.prepare()
        clear_leftovers(self._homes)
        self._sources.clear_unfinished()
        self._environments.clear_unfinished()

    async def close(self) -> None:
        self._watch.close()
        self._callbacks.clear()
        await asyncio.gather(*self._settling)

    async def check(self) -> None:
        def check() -> None:
            if not os.access(self._homes.folder, os.W_OK):
                raise RuntimeUnavailable(f"{self._homes.folder} cannot be written")

        await self._threads.look(check)

    async def resolve_image(
        self, reference: str, digest: str | None = None, tell: Tell | None = None
    ) -> Image:
        if digest is not None:  # made again by the launch, if it has to be
            return Image(reference, digest)
        return await self.find_image(reference)

    async def find_image(self, reference: str) -> Image:
        return await self._threads.work(partial(self._sources.resolve, reference))

    async def refuse_unsupported(
        self,
        resources: Resources,
        gpus: str | None,
        volumes: Collection[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        if gpus is not None:
            raise UnsupportedSetting(
                "gpus cannot be honoured: processes share every GPU of the machine",
                hint="leave `gpus` out under RUNTIME=process, where trainers see all of them",
            )
        if volumes:
            raise UnsupportedSetting(
                "volumes cannot be honoured: processes see the files of the machine as they are",
                hint="leave `volumes` out under RUNTIME=process, and name the folder in `env`",
            )
        await self._threads.look(partial(self._cgroups.refuse_unsupported, resources))

    async def launch(self, workload: Workload) -> WorkloadState:
        state = await self.inspect(workload.owner)
        if state is not None:
            return await self._adopt(state)
        await self.refuse_unsupported(workload.resources, workload.gpus, workload.volumes)
        source = await self._threads.work(partial(self._sources.open, workload.image))
        interpreter = await self._environments.interpreter(source.lock)
        with CancelScope(shield=True):  # from here on it is a moment, and then it has to be watched
            launch = partial(self._launcher.launch, workload, source, interpreter)
            launched, is_new = await self._threads.work(launch)
            if (launched.running or is_new) and not await self._take_hold(workload.owner):
                self._hear_end(workload.owner, asyncio.Event())
        return launched

    async def _adopt(self, state: WorkloadState) -> WorkloadState:
        if state.running and not await self._take_hold(state.owner):
            self._hear_end(state.owner, asyncio.Event())
        return state

    async def inspect(self, owner: str) -> WorkloadState | None:
        return await self._threads.look(self._homes.of(owner).state)

    async def list_owned(self) -> list[WorkloadState]:
        return await self._threads.look(self._homes.states)

    async def usage(self, owner: str) -> Usage | None:
        return await self._threads.look(partial(read_usage, self._homes.of(owner)))

    async def memory(self) -> Memory | None:
        return read_machine_memory()

    async def logs(self, owner: str, tail_bytes: int) -> str:
        return await self._threads.look(partial(self._homes.of(owner).read_logs, tail_bytes))

    async def stop(self, owner: str, grace_seconds: float) -> None:
        ended = await self._signal(owner, signal.SIGTERM)
        if ended is not None and not await happens_within(ended, grace_seconds):
            await self._kill(owner)

    async def remove(self, owner: str) -> None:
        while not await self._threads.work(partial(remove_workload, self._homes.of(owner))):
            await self._kill(owner)

    def on_end(self, callback: EndCallback) -> None:
        self._callbacks.append(callback)

    # --- ends -------------------------------------------------------------------------------------------

    def _hear_end(self, owner: str, ended: asyncio.Event) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(owner, ended))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, owner: str, ended: asyncio.Event) -> None:
        """Its end is told once nothing of it is left."""
        try:
            await self._threads.work(partial(settle, self._homes.of(owner)))
        except SwitchyardError as error:
            log.warning("leftovers of an ended workload stay", owner=owner, error=error.message)
        ended.set()
        for callback in self._callbacks:
            callback(owner)

    async def _take_hold(self, owner: str) -> bool:
        """Whether it is watched now. False: it has ended."""
        if owner not in self._watch:
            hold = await self._threads.look(partial(take_hold, self._homes.of(owner)))
            if hold is None:
                return False
            self._watch.add(owner, hold)
        return True

    async def _signal(self, owner: str, number: int) -> asyncio.Event | None:
        """Its end, to be awaited; None if it has ended."""
        await self._take_hold(owner)
        self._watch.signal(owner, number)
        return self._watch.end_of(owner)

    async def _kill(self, owner: str) -> None:
        ended = await self._signal(owner, signal.SIGUSR1)
        if ended is None or await happens_within(ended, KILL_SECONDS):
            return
        # A shim that is itself stopped or stuck: its end is the child's end, and leaves the rest to us.
        self._watch.signal(owner, signal.SIGKILL)
        await ended.wait()


def read_usage(home: Home) -> Usage | None:
    """Of the child and its descendants, as far as they live; None if it does not run."""
    launched, shim = home.launched(), home.shim()
    if launched is None or shim is None:
        return None
    memory, cpu = 0, 0.0
    try:
        family = psutil.Process(shim).children(recursive=True)
    except psutil.NoSuchProcess:
        return None
    for process in family:
        try:
            with process.oneshot():
                memory += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system + times.children_user + times.children_system
        except psutil.NoSuchProcess:
            continue  # ended while we looked
    return Usage(read_memory(map(Path, launched.order.groups)) or memory, cpu)
