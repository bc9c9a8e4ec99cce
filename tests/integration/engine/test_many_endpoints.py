"""A hundred endpoints over a real Caddy and a real store: each works as if it were the only one."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from router.core.clock import SystemClock
from router.core.errors import StandingBy
from router.core.ids import RandomIds
from router.core.models import Endpoint, Rollout, Server, ServerPhase
from router.core.strategies import Strategy
from router.engine.commands import Caller, RolloutRequest
from router.engine.context import Context, Policy
from router.engine.engine import Engine
from router.engine.ledger import Ledger, endpoint_topic
from router.engine.probing import Prober
from router.engine.spec_files import SpecFiles
from router.proxies.caddy_slots import CaddySlots
from router.proxies.slot_lock import SlotLock
from router.registries.memory import MemoryRegistry
from router.runtimes.base import Role, Workload, WorkloadState
from router.runtimes.memory import MemoryRuntime
from router.stores.sql import SqlStore
from tests.services.caddy import Caddy, short_directory
from tests.services.proxied import make_layout
from tests.services.reloads import AcrossReloads, Reloads
from tests.services.upstream import UpstreamServer

pytestmark = pytest.mark.anyio

NAMES = [f"team-{number:03}" for number in range(100)]
MODEL = "Iris"
WAIT_SECONDS = 120.0
LOOK_SECONDS = 0.02


@dataclass
class ListeningRuntime(MemoryRuntime):
    """Every server that it launches really listens, in this process."""

    listening: dict[str, UpstreamServer] = field(default_factory=dict)

    async def launch(self, workload: Workload) -> WorkloadState:
        state = await super().launch(workload)
        if workload.role is Role.SERVER and workload.owner not in self.listening:
            server = self.listening[workload.owner] = await UpstreamServer().start()
            self._states[workload.owner] = replace(state, address=server.address)
        return self._states[workload.owner]

    async def stop(self, owner: str, grace_seconds: float) -> None:
        await self.listening[owner].stop()
        await super().stop(owner, grace_seconds)


@dataclass
class Town:
    engine: Engine
    caddy: Caddy
    runtime: ListeningRuntime
    client: httpx.AsyncClient
    versions: list[int]

    def count_loads(self) -> int:
        return self.caddy.log.read_text().count('"uri":"/load"')

    async def roll(self, name: str, version: int) -> None:
        request = RolloutRequest(name=MODEL, ref=version, endpoint=name)
        rollout_id = await self.engine.commands.start_rollout(request, Caller())
        await self.settle(rollout_id)

    async def roll_back(self, name: str) -> None:
        await self.settle(await self.engine.commands.roll_back(Caller(), endpoint=name))

    async def settle(self, rollout_id: str) -> None:
        rollout = await self.engine.wait_until(
            Rollout, rollout_id, lambda rollout: rollout.phase.terminal, WAIT_SECONDS
        )
        assert str(rollout.phase) == "succeeded", rollout.failure

    async def ask(self, name: str) -> tuple[int, str]:
        """Status, and the server that answered by its own words."""
        answer = await self.client.post(f"/endpoints/{name}/invocations", content=b"{}")
        return answer.status_code, answer.json().get("server", answer.json().get("error", {}).get("code"))

    async def served_by(self, name: str) -> Server:
        active = (await self.engine.context.proxy.read_traffic(name)).active
        assert active is not None
        return await self.engine.store.get(Server, active.server_id)

    async def until_served_by_another(self, name: str, than: Server) -> None:
        with anyio.fail_after(WAIT_SECONDS):
            while True:
                changed = self.engine.context.ledger.wakeups.take(endpoint_topic(name))
                if (await self.served_by(name)).id != than.id:
                    return
                await changed.wait()


@asynccontextmanager
async def open_town(directory: Path) -> AsyncIterator[Town]:
    layout, config, clock = make_layout(directory), directory / "caddy.json", SystemClock()
    runtime, registry = ListeningRuntime(), MemoryRegistry()
    versions = [registry.add_version(MODEL).version for _ in range(2)]
    specs = directory / "specs"
    specs.mkdir()
    store = SqlStore(f"sqlite:///{directory}/switchyard.db")
    context = Context(
        runtime=runtime,
        proxy=CaddySlots(layout=layout, slots=directory / "slots", config_path=config),
        registry=registry,
        store=store,
        specs=SpecFiles(specs, {}, clock),
        prober=Prober(clock),
        clock=clock,
        ids=RandomIds(),
        policy=Policy(
            mlflow_tracking_uri="http://mlflow",
            public_url="http://public",
            serve_image="tiny",
            plan=Strategy(bake=0),
        ),
        ledger=Ledger(store, clock),
    )
    caddy = Caddy(config, layout.admin_socket, directory / "caddy")
    engine, url = Engine(context, SlotLock(directory / "slots")), f"http://{layout.public_listen}"
    transport = AcrossReloads(Reloads(caddy.log))
    async with engine.running(), httpx.AsyncClient(base_url=url, timeout=60, transport=transport) as client:
        await until_it_leads(engine)
        caddy.start()
        try:
            yield Town(engine, caddy, runtime, client, versions)
        finally:
            caddy.stop()
    for server in runtime.listening.values():
        await server.stop()


async def until_it_leads(engine: Engine) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while True:
            try:
                engine.require_lead()
                return
            except StandingBy:
                await anyio.sleep(LOOK_SECONDS)


async def for_each(names: Sequence[str], act: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """At the same time."""
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(act, name)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    with short_directory() as directory:
        async with open_town(directory) as town:
            yield town


async def test_a_hundred_endpoints_are_added_served_rolled_back_and_removed(town: Town) -> None:
    engine, (first, second) = town.engine, town.versions
    loads = town.count_loads()
    await engine.endpoints.add(NAMES, by=None, reason=None)
    assert town.count_loads() == loads + 1

    async def serve(name: str) -> None:
        assert await town.ask(name) == (503, "no_model")
        await town.roll(name, first)
        assert await town.ask(name) == (200, (await town.served_by(name)).address)

    await for_each(NAMES, serve)
    servers = {(await town.served_by(name)).id for name in NAMES}
    assert len(servers) == len(town.runtime.listening) == len(NAMES)

    async def go_on(name: str) -> None:
        await town.roll(name, second)
        assert (await town.served_by(name)).version == second
        assert await town.ask(name) == (200, (await town.served_by(name)).address)

    async def go_back(name: str) -> None:
        await go_on(name)
        await town.roll_back(name)
        assert (await town.served_by(name)).version == first
        assert await town.ask(name) == (200, (await town.served_by(name)).address)

    await for_each(NAMES[:10], go_on)
    await for_each(NAMES[10:20], go_back)
    assert {(await town.served_by(name)).version for name in NAMES[10:]} == {first}
    assert town.count_loads() == loads + 1
    with anyio.fail_after(WAIT_SECONDS):  # a ping that was answered late is soon followed by another
        for name in NAMES:
            while not (await engine.health.serving(name)).healthy:  # noqa: ASYNC110
                await anyio.sleep(LOOK_SECONDS)

    going, staying = NAMES[::2], NAMES[1::2]

    async def remove(name: str) -> None:
        await engine.endpoints.remove(name, by=None, reason=None, force=False)
        closed = await engine.wait_until(Endpoint, name, lambda found: found.phase.terminal, WAIT_SECONDS)
        assert closed.phase.terminal
        assert await town.ask(name) == (404, "unknown_endpoint")

    await for_each(going, remove)
    for name in staying:
        assert await town.ask(name) == (200, (await town.served_by(name)).address)
    for name in going:
        ended = await engine.store.find(Server, endpoint=name)
        assert {server.phase for server in ended} == {ServerPhase.STOPPED}
    assert await engine.context.proxy.endpoints() == sorted(["default", *staying])


async def test_a_server_that_dies_is_replaced_where_it_served_and_nowhere_else(town: Town) -> None:
    await town.engine.endpoints.add(NAMES[:20], by=None, reason=None)
    await for_each(NAMES[:20], lambda name: town.roll(name, town.versions[0]))
    before = {name: await town.served_by(name) for name in NAMES[:20]}
    dead = before[NAMES[7]]
    await town.runtime.listening[dead.id].stop()
    town.runtime.end(dead.id, 137)
    await town.until_served_by_another(NAMES[7], dead)
    assert await town.ask(NAMES[7]) == (200, (await town.served_by(NAMES[7])).address)
    others = NAMES[:7] + NAMES[8:20]
    assert {name: await town.served_by(name) for name in others} == {name: before[name] for name in others}
