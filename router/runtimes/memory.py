"""A runtime without processes, for tests of the engine: what a workload does is said by the test.

Nothing here takes time or happens by itself, so a test that ends a trainer knows exactly when it ended.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256

from router.core.clock import Clock, SystemClock
from router.core.errors import ImageNotFound, RuntimeUnavailable, SwitchyardError, UnsupportedSetting
from router.core.specs import Resources
from router.runtimes.base import (
    EndCallback,
    Image,
    Memory,
    Role,
    Tell,
    Usage,
    Workload,
    WorkloadState,
    WorkloadStatus,
)

FIRST_PORT = 20_000
SIGKILL, SIGTERM = 9, 15


@dataclass
class Behaviour:
    """What workloads of one image reference do."""

    digest: str | None = None  # None: made from the reference
    pull_seconds: float = 0  # until it is there
    launch_error: SwitchyardError | None = None
    ends_at_once: int | None = None  # exit code of a workload that ends as soon as it has started
    ignores_sigterm: bool = False
    output: str = ""


@dataclass
class MemoryRuntime:
    """Every image reference is there unless it stands in `missing`."""

    clock: Clock = field(default_factory=SystemClock)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    unsupported: set[str] = field(default_factory=set)  # cpus, memory, pids, gpus, volumes, env
    unavailable: bool = False
    output: dict[str, str] = field(default_factory=dict)  # by owner
    usages: dict[str, Usage] = field(default_factory=dict)  # by owner
    memory_left: int | None = None
    memory_used: int = 2**50
    launched: list[Workload] = field(default_factory=list)  # every launch that was not an adoption
    stopped: list[str] = field(default_factory=list)  # owners that were running when told to stop
    removed: list[str] = field(default_factory=list)
    pulled: set[str] = field(default_factory=set)  # references that are there
    _states: dict[str, WorkloadState] = field(default_factory=dict)
    _images: dict[str, str] = field(default_factory=dict)  # owner -> reference
    _callbacks: list[EndCallback] = field(default_factory=list)
    _next_port: int = FIRST_PORT

    def end(self, owner: str, exit_code: int | None, out_of_memory: bool | None = None) -> None:
        """The workload ends now, and whoever listens is told. `exit_code` None: nobody knows how."""
        state = self._states[owner]
        if state.status is WorkloadStatus.EXITED:
            return
        self._states[owner] = replace(
            state,
            status=WorkloadStatus.EXITED,
            exit_code=exit_code,
            out_of_memory=out_of_memory,
            finished_at=self.clock.now(),
        )
        for callback in self._callbacks:
            callback(owner)

    def running(self) -> list[str]:
        return [owner for owner, state in self._states.items() if state.status is WorkloadStatus.RUNNING]

    def forget_callbacks(self) -> None:
        """As a router that dies: nobody is told of what ends from now on."""
        self._callbacks.clear()

    async def start(self) -> None:
        await self.check()

    async def close(self) -> None:
        self.forget_callbacks()

    async def check(self) -> None:
        if self.unavailable:
            raise RuntimeUnavailable("The in-memory runtime was told not to answer.")

    async def resolve_image(
        self, reference: str, digest: str | None = None, tell: Tell | None = None
    ) -> Image:
        await self.check()
        seconds = self._behaviour(reference).pull_seconds
        if seconds and reference not in self.pulled:
            if tell is not None:
                tell(f"the image {reference} is being pulled")
            await self.clock.sleep(seconds)
        self.pulled |= {reference} - self.missing
        image = await self.find_image(reference)
        return image if digest is None else Image(reference, digest)

    async def find_image(self, reference: str) -> Image:
        await self.check()
        behaviour = self._behaviour(reference)
        if reference in self.missing or (behaviour.pull_seconds and reference not in self.pulled):
            raise ImageNotFound(f"There is no image {reference!r}.")
        made = "sha256:" + sha256(reference.encode()).hexdigest()
        return Image(reference, behaviour.digest or made)

    async def refuse_unsupported(
        self,
        resources: Resources,
        gpus: str | None,
        volumes: Collection[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        wanted: dict[str, object] = {"gpus": gpus, "volumes": volumes or None, "env": env or None}
        if resources.required:
            wanted |= {name: getattr(resources, name) for name in ("cpus", "memory", "pids")}
        for name in sorted(self.unsupported):
            if wanted.get(name) is not None:
                setting = name if name in {"gpus", "volumes", "env"} else f"resources.{name}"
                raise UnsupportedSetting(f"This runtime cannot honour {setting!r}.")

    async def launch(self, workload: Workload) -> WorkloadState:
        await self.check()
        if workload.owner in self._states:
            return self._states[workload.owner]
        await self.refuse_unsupported(workload.resources, workload.gpus, workload.volumes)
        await self.resolve_image(workload.image.reference)
        behaviour = self._behaviour(workload.image.reference)
        if behaviour.launch_error is not None:
            raise behaviour.launch_error
        self.launched.append(workload)
        self.output[workload.owner] = behaviour.output
        self._images[workload.owner] = workload.image.reference
        self._states[workload.owner] = WorkloadState(
            owner=workload.owner,
            name=workload.name,
            role=workload.role,
            status=WorkloadStatus.RUNNING,
            address=self._choose_address(workload) if workload.role is Role.SERVER else None,
            started_at=self.clock.now(),
        )
        if behaviour.ends_at_once is not None:
            self.end(workload.owner, behaviour.ends_at_once)
        return self._states[workload.owner]

    async def inspect(self, owner: str) -> WorkloadState | None:
        await self.check()
        return self._states.get(owner)

    async def list_owned(self) -> list[WorkloadState]:
        await self.check()
        return list(self._states.values())

    async def usage(self, owner: str) -> Usage | None:
        if owner not in self.running():
            return None
        return self.usages.get(owner, Usage(memory_bytes=64 * 2**20, cpu_seconds=0.5))

    async def memory(self) -> Memory | None:
        return None if self.memory_left is None else Memory(self.memory_left, self.memory_used)

    async def logs(self, owner: str, tail_bytes: int) -> str:
        text = self.output.get(owner, "").encode()
        return text[max(0, len(text) - tail_bytes) :].decode(errors="ignore")

    async def stop(self, owner: str, grace_seconds: float) -> None:
        await self.check()
        if owner not in self.running():
            return
        self.stopped.append(owner)
        ignores = self._behaviour(self._images[owner]).ignores_sigterm
        self.end(owner, 128 + (SIGKILL if ignores else SIGTERM))

    async def remove(self, owner: str) -> None:
        await self.check()
        if owner not in self._states:
            return
        self.end(owner, 128 + SIGKILL)
        self.removed.append(owner)
        for known in (self._states, self._images, self.output, self.usages):
            known.pop(owner, None)

    def on_end(self, callback: EndCallback) -> None:
        self._callbacks.append(callback)

    def _behaviour(self, reference: str) -> Behaviour:
        return self.behaviours.get(reference, Behaviour())

    def _choose_address(self, workload: Workload) -> str:
        while True:
            address = f"127.0.0.1:{self._next_port}"
            self._next_port += 1
            if address not in workload.avoid_addresses:
                return address
