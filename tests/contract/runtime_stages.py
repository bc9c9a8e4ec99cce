"""Where each runtime of the contract plays: puppets that do as a test tells them, and a router that dies."""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from anyio import to_thread

from router.core.specs import Resources
from router.runtimes.base import Image, Role, Runtime, Workload, WorkloadState
from router.runtimes.docker import DockerRuntime
from router.runtimes.memory import Behaviour, MemoryRuntime
from router.runtimes.process import ProcessRuntime
from tests.services import docker_puppets
from tests.services.docker_puppets import Puppets
from tests.services.ports import WORKSHOP_PORTS, choose_mine

OBEDIENT, STUBBORN, MISSING = "obedient", "stubborn", "missing"
LIMIT_SECONDS = 60
PUPPET = """
import os, signal, sys
if os.environ["KIND"] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.environ["SAYS"], flush=True)
with open(os.environ["ORDERS"]) as orders:
    verb, number = orders.read().split()
if verb == "exit":
    sys.exit(int(number))
os.kill(os.getpid(), int(number))
"""
SOURCE = 'train = ["python", "puppet.py"]\nserve = ["python", "puppet.py"]\n'


class Stage(Protocol):
    @property
    def runtime(self) -> Runtime: ...

    def image_of(self, kind: str) -> str:
        """The reference to write for it."""

    def name_of(self, owner: str) -> str:
        """The name of this owner's workload."""

    async def launch(
        self,
        owner: str,
        kind: str = OBEDIENT,
        *,
        role: Role = Role.TRAINER,
        says: str = "",
        avoid: frozenset[str] = frozenset(),
    ) -> WorkloadState: ...

    async def make_ready(self, owner: str) -> None:
        """Returns when the puppet waits for orders."""

    async def end(self, owner: str, exit_code: int) -> None:
        """The puppet ends by itself, now or in a moment."""

    async def be_killed(self, owner: str, number: int) -> None:
        """The puppet ends by a signal that nobody asked for."""

    async def replace_router(self) -> None:
        """The router dies without a word; `runtime` is then that of the next one, which has started."""

    async def close(self) -> None: ...


class PlainNames:
    """Where nobody else's names are in the way."""

    def image_of(self, kind: str) -> str:
        return kind

    def name_of(self, owner: str) -> str:
        return f"name-of-{owner}"


class MemoryStage(PlainNames):
    def __init__(self) -> None:
        self.runtime = MemoryRuntime(missing={MISSING}, unsupported={"gpus"})
        self.runtime.behaviours[STUBBORN] = Behaviour(ignores_sigterm=True)

    async def launch(
        self,
        owner: str,
        kind: str = OBEDIENT,
        *,
        role: Role = Role.TRAINER,
        says: str = "",
        avoid: frozenset[str] = frozenset(),
    ) -> WorkloadState:
        image = await self.runtime.resolve_image(kind)
        state = await self.runtime.launch(make_workload(owner, role, image, {}, avoid))
        self.runtime.output[owner] = says
        return state

    async def make_ready(self, owner: str) -> None:
        return

    async def end(self, owner: str, exit_code: int) -> None:
        self.runtime.end(owner, exit_code)

    async def be_killed(self, owner: str, number: int) -> None:
        self.runtime.end(owner, 128 + number)

    async def replace_router(self) -> None:
        self.runtime.forget_callbacks()

    async def close(self) -> None:
        return


class ProcessStage(PlainNames):
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._project = directory / "project"
        for kind in (OBEDIENT, STUBBORN):
            (self._project / kind).mkdir(parents=True)
            (self._project / kind / "source.toml").write_text(SOURCE)
            (self._project / kind / "puppet.py").write_text(PUPPET)
        self._strings: dict[str, int] = {}
        self._routers: list[ProcessRuntime] = []
        self.runtime = self.make_runtime()

    def make_runtime(self) -> ProcessRuntime:
        runtime = ProcessRuntime(
            state=self._directory / "state",
            project_root=self._project,
            ports=choose_mine(*WORKSHOP_PORTS),
            environment={"PATH": os.environ["PATH"]},
            build_environment={},
        )
        self._routers.append(runtime)
        return runtime

    def _orders(self, owner: str) -> Path:
        return self._directory / f"{owner}.orders"

    async def launch(
        self,
        owner: str,
        kind: str = OBEDIENT,
        *,
        role: Role = Role.TRAINER,
        says: str = "",
        avoid: frozenset[str] = frozenset(),
    ) -> WorkloadState:
        orders = self._orders(owner)
        if not orders.exists():
            os.mkfifo(orders)
        image = await self.runtime.resolve_image(kind)
        env = {"ORDERS": str(orders), "KIND": kind, "SAYS": says}
        return await self.runtime.launch(make_workload(owner, role, image, env, avoid))

    async def make_ready(self, owner: str) -> None:
        if owner not in self._strings:
            # Opening a pipe's writing end waits for its reader.
            self._strings[owner] = await to_thread.run_sync(os.open, self._orders(owner), os.O_WRONLY)

    async def end(self, owner: str, exit_code: int) -> None:
        await self._order(owner, f"exit {exit_code}")

    async def be_killed(self, owner: str, number: int) -> None:
        await self._order(owner, f"kill {number}")

    async def _order(self, owner: str, text: str) -> None:
        await self.make_ready(owner)
        string = self._strings.pop(owner)
        os.write(string, text.encode())
        os.close(string)

    async def replace_router(self) -> None:
        await self.runtime.close()
        self.runtime = self.make_runtime()
        await self.runtime.start()

    async def close(self) -> None:
        for state in await self.runtime.list_owned():
            await self.runtime.remove(state.owner)
        await self.runtime.close()
        for string in self._strings.values():
            os.close(string)


class DockerStage:
    """Its puppets are ordered by a pipe inside their container. Its router has Docker at `address`."""

    def __init__(self, puppets: Puppets, address: str) -> None:
        self._puppets = puppets
        self._address = address
        self._routers: list[DockerRuntime] = []
        self.runtime = self.make_runtime()

    def make_runtime(self) -> DockerRuntime:
        runtime = self._puppets.make_runtime(self._puppets.instance, self._address)
        self._routers.append(runtime)
        return runtime

    def image_of(self, kind: str) -> str:
        return docker_puppets.MISSING if kind == MISSING else self._puppets.image

    def name_of(self, owner: str) -> str:
        """Ends as the router's own names do, which is what a socket proxy lets pass."""
        return f"{self._puppets.token}-{owner}-00000000"

    async def launch(
        self,
        owner: str,
        kind: str = OBEDIENT,
        *,
        role: Role = Role.TRAINER,
        says: str = "",
        avoid: frozenset[str] = frozenset(),
    ) -> WorkloadState:
        image = await self.runtime.resolve_image(self.image_of(kind))
        env = {"KIND": kind, "SAYS": says}
        return await self.runtime.launch(
            make_workload(owner, role, image, env, avoid, name=self.name_of(owner))
        )

    async def make_ready(self, owner: str) -> None:
        await to_thread.run_sync(self._puppets.make_ready, self.name_of(owner))

    async def end(self, owner: str, exit_code: int) -> None:
        await to_thread.run_sync(self._puppets.order, self.name_of(owner), f"exit {exit_code}")

    async def be_killed(self, owner: str, number: int) -> None:
        await to_thread.run_sync(self._puppets.order, self.name_of(owner), f"kill {number}")

    async def replace_router(self) -> None:
        await self.runtime.close()
        self.runtime = self.make_runtime()
        await self.runtime.start()

    async def close(self) -> None:
        for runtime in self._routers:
            await runtime.close()
        await to_thread.run_sync(self._puppets.remove_containers, self._puppets.instance)


def make_workload(
    owner: str,
    role: Role,
    image: Image,
    env: dict[str, str],
    avoid: frozenset[str] = frozenset(),
    resources: Resources | None = None,
    name: str | None = None,
) -> Workload:
    return Workload(
        owner=owner,
        role=role,
        name=name or f"name-of-{owner}",
        image=image,
        env=env,
        resources=resources or Resources(),
        avoid_addresses=avoid,
    )


class Listener:
    """Hears the ends of workloads and waits for them."""

    def __init__(self, runtime: Runtime) -> None:
        self.heard: list[str] = []
        self._news = asyncio.Event()
        runtime.on_end(self._hear)

    def _hear(self, owner: str) -> None:
        self.heard.append(owner)
        self._news.set()

    async def wait_for(self, owner: str) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while owner not in self.heard:
                self._news.clear()
                await self._news.wait()
