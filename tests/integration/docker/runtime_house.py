"""A Docker runtime that plays with puppets, under a label of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread

from router.core.specs import Resources
from router.core.workload import Role, WorkloadState
from router.runtimes.base import Image, Workload
from router.runtimes.docker import DockerRuntime
from tests.contract.runtime_stages import Listener
from tests.services.docker_puppets import Puppets
from tests.services.marks import new_mark


class House:
    def __init__(self, puppets: Puppets, address: str | None, fields: dict[str, Any]) -> None:
        self.puppets = puppets
        self.docker = puppets.docker
        self.token = new_mark()
        self.instance = f"test-{self.token}"
        self.runtime: DockerRuntime = puppets.make_runtime(self.instance, address, **fields)
        self.listener = Listener(self.runtime)

    def name_of(self, owner: str) -> str:
        return f"{owner}-{self.token}"

    def workload(
        self,
        owner: str,
        image: Image,
        *,
        does: str = "",
        role: Role = Role.TRAINER,
        resources: Resources | None = None,
        gpus: str | None = None,
        volumes: dict[str, str] | None = None,
    ) -> Workload:
        return Workload(
            owner=owner,
            role=role,
            name=self.name_of(owner),
            image=image,
            env={"DOES": does},
            resources=resources or Resources(),
            gpus=gpus,
            volumes=volumes or {},
        )

    async def launch(self, owner: str, **fields: Any) -> WorkloadState:
        image = await self.runtime.resolve_image(self.puppets.image)
        return await self.runtime.launch(self.workload(owner, image, **fields))

    async def state_of(self, owner: str) -> WorkloadState:
        state = await self.runtime.inspect(owner)
        assert state is not None
        return state

    async def inspect(self, owner: str) -> dict[str, Any]:
        found: dict[str, Any] = await to_thread.run_sync(self.docker.inspect_container, self.name_of(owner))
        return found

    async def order(self, owner: str, text: str) -> None:
        await to_thread.run_sync(self.puppets.order, self.name_of(owner), text)

    async def make_ready(self, owner: str) -> None:
        await to_thread.run_sync(self.puppets.make_ready, self.name_of(owner))

    async def create_by_hand(self, name: str, labels: dict[str, str], *, start: bool = False) -> str:
        """Somebody else's doing; its id."""

        def create() -> str:
            made = self.docker.create_container(self.puppets.image, name=name, labels=labels)
            if start:
                self.docker.start(made["Id"])
            return str(made["Id"])

        return await asyncio.to_thread(create)


@asynccontextmanager
async def open_house(puppets: Puppets, address: str | None = None, **fields: Any) -> AsyncIterator[House]:
    """`fields` of the Placement."""
    house = House(puppets, address, fields)
    try:
        await house.runtime.start()
        yield house
    finally:
        await house.runtime.close()
        await to_thread.run_sync(puppets.remove_containers, house.instance)
