"""The port to whatever runs trainers and servers: local processes, Docker, later Kubernetes.

A workload is found again by its owner, the id of the training or server record that it belongs to, so every
call may be repeated after a crash: `launch` adopts what is already there.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.core.specs import Resources
from router.core.workload import Role, WorkloadState, WorkloadStatus

__all__ = [
    "EndCallback",
    "Image",
    "Role",
    "Runtime",
    "Tell",
    "Usage",
    "Workload",
    "WorkloadState",
    "WorkloadStatus",
]


@dataclass(frozen=True)
class Image:
    """What to run: the reference as a person wrote it, and the digest that pins its content."""

    reference: str
    digest: str


@dataclass(frozen=True)
class Workload:
    owner: str
    role: Role
    name: str  # unique for ever
    image: Image
    env: dict[str, str]  # complete but for SERVE_PORT and SERVE_HOST, which the runtime sets for a server
    resources: Resources = Resources()
    gpus: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)  # name -> folder inside, read-only
    endpoint: str | None = None  # of a server, for labels
    avoid_addresses: frozenset[str] = field(default_factory=frozenset)  # still named somewhere: never reuse


@dataclass(frozen=True)
class Usage:
    memory_bytes: int
    cpu_seconds: float


EndCallback = Callable[[str], None]
Tell = Callable[[str], None]  # hears, in words, what is being waited for


@dataclass(frozen=True)
class Memory:
    """Of a whole machine, in bytes."""

    free: int  # what new workloads could use now
    used: int  # by everything on it


class Runtime(Protocol):
    """Errors: ImageNotFound, LaunchFailed, UnsupportedSetting (by name), StorageFull, RuntimeUnavailable."""

    async def start(self) -> None:
        """Take up the watch over everything we own that still runs."""

    async def close(self) -> None:
        """Stop watching. Trainers and servers go on."""

    async def check(self) -> None:
        """Raise RuntimeUnavailable if it cannot launch now."""

    async def resolve_image(
        self, reference: str, digest: str | None = None, tell: Tell | None = None
    ) -> Image:
        """Pin a reference to a digest. Raises ImageNotFound.

        With the digest of an earlier call it stays that image, which is got again if it is gone.
        """

    async def find_image(self, reference: str) -> Image:
        """What `resolve_image` makes of it, if that takes no pull. Raises ImageNotFound."""

    async def refuse_unsupported(
        self,
        resources: Resources,
        gpus: str | None,
        volumes: Collection[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Raise UnsupportedSetting, naming the setting, if `launch` could not honour it."""

    async def launch(self, workload: Workload) -> WorkloadState:
        """Start it, or adopt what this owner already has, running or exited.

        One that fails leaves nothing. One that is cancelled is found and watched, or leaves nothing.
        """

    async def inspect(self, owner: str) -> WorkloadState | None:
        """None: nothing there with this owner."""

    async def list_owned(self) -> list[WorkloadState]: ...

    async def usage(self, owner: str) -> Usage | None: ...

    async def memory(self) -> Memory | None:
        """Of the machine that workloads run on; None: it cannot be known."""

    async def logs(self, owner: str, tail_bytes: int) -> str:
        """The end of what it printed; empty if nothing is there."""

    async def stop(self, owner: str, grace_seconds: float) -> None:
        """SIGTERM, after the grace SIGKILL; returns when it has ended. Nothing there: nothing to do."""

    async def remove(self, owner: str) -> None:
        """Forget an ended workload and its leftovers. Running: it is killed first."""

    def on_end(self, callback: EndCallback) -> None:
        """Call `callback(owner)` once in the event loop, soon after a workload ends, from events.

        Also of one that ends as soon as it has started. Not of what ended before `start`.
        """
