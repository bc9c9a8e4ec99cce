"""Trainers and servers as containers: found again by their labels, dialled by their names.

A container has no restart policy: whether something runs again is the engine's decision, not Docker's. This
module is the port: who may call when, and what is awaited.
"""

from collections.abc import Collection, Mapping
from weakref import WeakValueDictionary

import anyio
import structlog
from anyio import CancelScope

from router.core.errors import LaunchFailed, RuntimeUnavailable, StorageFull
from router.core.specs import Resources
from router.core.workload import WorkloadState
from router.runtimes.base import EndCallback, Image, Memory, Tell, Usage, Workload
from router.runtimes.docker_client import Call, DockerClient, Refused
from router.runtimes.docker_containers import INSTANCE, OWNER, Container, Containers
from router.runtimes.docker_create import Placement, make_body, refuse_unsupported
from router.runtimes.docker_events import Watch
from router.runtimes.docker_images import FULL, Images
from router.runtimes.docker_logs import read_tail
from router.runtimes.docker_usage import read_usage
from router.runtimes.machine import read_machine_memory
from router.runtimes.waiting import happens_within

CHECK_SECONDS = 2.0  # a thread that waits cannot be called back, and a person waits for it
KILL_SECONDS = 10.0  # until an end that was ordered and not heard of is looked up

log = structlog.get_logger()


class DockerRuntime:
    def __init__(self, *, address: str, placement: Placement, pull_seconds: float) -> None:
        self._client = DockerClient(address)
        self._placement = placement
        self._containers = Containers(self._client, placement.instance)
        self._images = Images(self._client, pull_seconds)
        self._watch = Watch(self._client, self._containers, self._tell)
        self._callbacks: list[EndCallback] = []
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        for group in (await self._containers.groups()).values():
            await self._containers.remove_doubles(group)
            for unstarted in (each for each in group if each.state == "created"):
                await self._containers.remove(unstarted.id)  # of a router that died in a launch
        await self._watch.start()

    async def close(self) -> None:
        self._callbacks.clear()
        await self._watch.close()
        self._client.close()

    async def check(self) -> None:
        await self._client.consume(
            Call("GET", "/_ping", seconds=CHECK_SECONDS), lambda answer: answer.content
        )

    async def resolve_image(
        self, reference: str, digest: str | None = None, tell: Tell | None = None
    ) -> Image:
        if digest is None:
            return await self._images.resolve(reference, tell)
        image = Image(reference, digest)
        await self._images.find_pinned(image, tell)
        return image

    async def find_image(self, reference: str) -> Image:
        return await self._images.find(reference)

    async def refuse_unsupported(
        self,
        resources: Resources,
        gpus: str | None,
        volumes: Collection[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        refuse_unsupported(self._placement, resources, gpus, volumes, env or {})

    async def launch(self, workload: Workload) -> WorkloadState:
        turn = self._turns.setdefault(workload.owner, anyio.Lock())
        async with turn:
            group = await self._containers.find(workload.owner)
            await self._containers.remove_doubles(group)
            adopted = await self._adopt(group)
            if adopted is not None:
                return adopted
            refuse_unsupported(
                self._placement, workload.resources, workload.gpus, workload.volumes, workload.env
            )
            image = await self._images.find_pinned(workload.image)
            with CancelScope(shield=True):  # from here on it is a moment, and then it has to be watched
                for unstarted in group:
                    await self._containers.remove(unstarted.id)
                launched = await self._start(workload, await self._create(workload, image))
        return launched

    async def inspect(self, owner: str) -> WorkloadState | None:
        found = await self._containers.find_launched(owner)
        return await self._containers.inspect(found.id) if found else None

    async def list_owned(self) -> list[WorkloadState]:
        return await self._containers.states()

    async def usage(self, owner: str) -> Usage | None:
        found = await self._containers.find_launched(owner)
        return await read_usage(self._client, found.id) if found else None

    async def memory(self) -> Memory | None:
        """Of this machine: the router shares its disk with the engine, so it is the engine's too."""
        return read_machine_memory()

    async def logs(self, owner: str, tail_bytes: int) -> str:
        found = await self._containers.find_launched(owner)
        return await read_tail(self._client, found.id, tail_bytes) if found else ""

    async def stop(self, owner: str, grace_seconds: float) -> None:
        found = await self._containers.find_launched(owner)
        state = await self._containers.inspect(found.id) if found else None
        if found is None or state is None or not state.running:
            return
        ended = self._watch.add(owner, found.id)
        for signal, seconds in (("SIGTERM", grace_seconds), ("SIGKILL", KILL_SECONDS)):
            await self._containers.kill(found.id, signal)
            if await happens_within(ended, seconds) or await self._has_ended(found):
                return
        raise RuntimeUnavailable(f"Docker could not kill {found.name} within {KILL_SECONDS:g} s.")

    async def remove(self, owner: str) -> None:
        for each in await self._containers.find(owner):
            await self._containers.remove(each.id)
            self._watch.end(owner, each.id)

    def on_end(self, callback: EndCallback) -> None:
        self._callbacks.append(callback)

    # --- launches ---------------------------------------------------------------------------------------

    async def _adopt(self, group: list[Container]) -> WorkloadState | None:
        found = next((each for each in group if each.state != "created"), None)
        if found is None:
            return None
        state = await self._containers.inspect(found.id)
        if state is not None and state.running:
            self._watch.add(found.owner, found.id)
            state = await self._containers.inspect(found.id)  # an end before it was watched
            if state is None or not state.running:
                self._watch.end(found.owner, found.id)
        return state

    async def _create(self, workload: Workload, image: str) -> str:
        """The container's id."""
        body = make_body(workload, image, self._placement)
        try:
            made = await self._client.call("POST", "/containers/create", body, name=workload.name)
        except Refused as refused:
            if refused.answer == 409 and await self._is_being_made(workload):
                raise RuntimeUnavailable(f"Docker is still making {workload.name}") from refused
            if refused.answer == 409:
                raise LaunchFailed(
                    f"the name {workload.name} is taken by another container: {refused.reason}",
                    hint=f"nothing was started; remove or rename the container {workload.name}",
                ) from refused
            raise failed(workload, refused) from refused
        for warning in made.get("Warnings") or ():
            log.warning("Docker warns", container=workload.name, warning=warning)
        return str(made["Id"])

    async def _is_being_made(self, workload: Workload) -> bool:
        """By a creation whose answer was lost: Docker reserves a name first, and shows the container last."""
        try:
            found = await self._client.call("GET", f"/containers/{workload.name}/json")
        except Refused as refused:
            return refused.answer == 404
        labels = found["Config"]["Labels"] or {}
        return (labels.get(OWNER), labels.get(INSTANCE)) == (workload.owner, self._containers.instance)

    async def _start(self, workload: Workload, container_id: str) -> WorkloadState:
        self._watch.add(workload.owner, container_id)
        try:
            await self._client.call("POST", f"/containers/{container_id}/start")
        except Refused as refused:
            self._watch.forget(workload.owner, container_id)
            await self._containers.remove(container_id)
            raise failed(workload, refused) from refused
        state = await self._containers.inspect(container_id)
        if state is None:
            raise LaunchFailed(f"{workload.name} was removed by somebody as soon as it had started.")
        return state

    # --- ends -------------------------------------------------------------------------------------------

    async def _has_ended(self, container: Container) -> bool:
        """Asked where no event has come: the stream may be cut."""
        state = await self._containers.inspect(container.id)
        if state is not None and state.running:
            return False
        self._watch.end(container.owner, container.id)
        return True

    def _tell(self, owner: str) -> None:
        for callback in self._callbacks:
            callback(owner)


def failed(workload: Workload, refused: Refused) -> LaunchFailed | StorageFull:
    if FULL in refused.reason:
        return StorageFull(f"The disk is full. {workload.name} was not started.")
    hint = "nothing was started"
    if workload.gpus is not None and "device driver" in refused.reason:
        hint = f"nothing was started; the engine cannot give `gpus: {workload.gpus}`"
    return LaunchFailed(f"{workload.name} cannot be started: {refused.reason}", hint=hint)
