"""One listing of workloads serves all who ask at once, and none is answered from before its question."""

import anyio
import pytest

from router.core.errors import RuntimeUnavailable
from router.core.workload import WorkloadState
from router.engine.listing import SharedListing
from router.runtimes.base import Image, Role, Workload
from router.runtimes.memory import MemoryRuntime

pytestmark = pytest.mark.anyio

SERVER = Workload(owner="srv_1", role=Role.SERVER, name="s", image=Image("i", "d"), env={})


class SlowRuntime(MemoryRuntime):
    """A listing shows what there was when it began, and takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.begun = anyio.Event()
        self.let_go = anyio.Event()

    async def list_owned(self) -> list[WorkloadState]:
        self.listed += 1
        states = await super().list_owned()
        self.begun.set()
        await self.let_go.wait()
        return states


async def test_many_who_ask_at_once_share_one_listing() -> None:
    runtime = SlowRuntime()
    runtime.let_go.set()
    listing = SharedListing(runtime)
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(listing.read)
    assert runtime.listed == 1
    await listing.read()
    assert runtime.listed == 2


async def test_who_asks_during_a_listing_gets_the_next_one() -> None:
    runtime = SlowRuntime()
    listing = SharedListing(runtime)
    answers: list[set[str]] = []

    async def ask() -> None:
        answers.append(set(await listing.read()))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await runtime.begun.wait()
        await runtime.launch(SERVER)
        for _ in range(10):
            group.start_soon(ask)
        runtime.let_go.set()
    assert answers == [set(), *[{"srv_1"}] * 10]
    assert runtime.listed == 2


async def test_a_listing_that_fails_is_nobodys_answer() -> None:
    runtime = SlowRuntime()
    runtime.let_go.set()
    listing = SharedListing(runtime)
    runtime.unavailable = True
    with pytest.raises(RuntimeUnavailable):
        await listing.read()
    runtime.unavailable = False
    await runtime.launch(SERVER)
    assert set(await listing.read()) == {"srv_1"}
