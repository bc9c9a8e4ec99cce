"""The router's whole engine on a Docker engine: puppets train and serve, the other ports are in memory."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx
from anyio import to_thread

from router.core.clock import SystemClock
from router.core.errors import RuntimeUnavailable, StandingBy
from router.core.ids import RandomIds
from router.core.models import Record, Rollout, Server, Training
from router.core.strategies import Strategy
from router.engine.commands import Caller, RolloutRequest, TrainingRequest
from router.engine.context import Context, Policy
from router.engine.engine import Engine
from router.engine.ledger import Ledger
from router.engine.probing import Prober
from router.engine.spec_files import SpecFiles
from router.proxies.memory import MemoryProxy
from router.registries.memory import MemoryRegistry
from router.runtimes.docker_client import DockerClient
from router.stores.memory import MemoryStore
from tests.services.docker_puppets import Puppets
from tests.services.marks import new_mark
from tests.unit.engine.yard import EXAMPLE, FreeLock

R = TypeVar("R", bound=Record)
LIMIT_SECONDS = 90
LOOK_SECONDS = 0.1
MODEL = "Iris"
SPEC = {"iris": {"trainer_image": "none", "timeout": 600, "env": {"REGISTERED_MODEL_NAME": MODEL}}}


class ByContainer(httpx.AsyncHTTPTransport):
    """Dials containers by their names, as the router in its container would."""

    def __init__(self, puppets: Puppets) -> None:
        super().__init__()
        self._network = puppets.network
        self._client = DockerClient(puppets.docker_host)

    async def aclose(self) -> None:
        await super().aclose()
        self._client.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            found = await self._client.call("GET", f"/containers/{request.url.host}/json")
        except RuntimeUnavailable as error:
            raise httpx.ConnectError(f"{request.url.host} is not there", request=request) from error
        address = found["NetworkSettings"]["Networks"][self._network]["IPAddress"]
        if not address:
            raise httpx.ConnectError(f"{request.url.host} does not run", request=request)
        request.url = request.url.copy_with(host=address)
        return await super().handle_async_request(request)


class EngineHouse:
    def __init__(self, puppets: Puppets, folder: Path) -> None:
        (folder / "iris.json").write_text(json.dumps(SPEC).replace('"none"', f'"{puppets.image}"'))
        self.puppets = puppets
        self.instance = f"test-{new_mark()}"
        self.runtime = puppets.make_runtime(self.instance)
        self.proxy = MemoryProxy()
        self.registry = MemoryRegistry()
        clock, store = SystemClock(), MemoryStore()
        context = Context(
            runtime=self.runtime,
            proxy=self.proxy,
            registry=self.registry,
            store=store,
            specs=SpecFiles(folder, {}, clock),
            prober=Prober(clock, transport=ByContainer(puppets)),
            clock=clock,
            ids=RandomIds(),
            policy=Policy(
                mlflow_tracking_uri="http://mlflow:5000",
                public_url="http://localhost:9000",
                runtime_kind="docker",
                serve_image=puppets.image,
                sweep_seconds=1.0,
                plan=Strategy(bake=0),
            ),
            ledger=Ledger(store, clock),
        )
        self.engine = Engine(context, FreeLock())

    async def leads(self) -> bool:
        try:
            self.engine.require_lead()
        except StandingBy:
            return False
        return True

    def add_version(self) -> int:
        return self.registry.add_version(MODEL, input_example=EXAMPLE).version

    async def train(self) -> Training:
        """One that runs and waits for orders."""
        training_id = await self.engine.commands.start_training(TrainingRequest("iris"), Caller())
        training = await self.wait_for(Training, training_id, lambda training: training.phase == "running")
        await to_thread.run_sync(self.puppets.make_ready, training.container)
        return training

    async def roll(self, version: int, serve_image: str | None = None) -> Rollout:
        """One whose candidate runs and is not ready yet."""
        request = RolloutRequest(MODEL, version, serve_image=serve_image)
        rollout_id = await self.engine.commands.start_rollout(request, Caller())
        return await self.wait_for(Rollout, rollout_id, lambda rollout: rollout.phase == "probing")

    async def roll_out(self, version: int, serve_image: str | None = None) -> Rollout:
        """One that has come to its end, well."""
        rollout = await self.roll(version, serve_image)
        await self.let_serve(rollout.server_id)
        return await self.wait_for(Rollout, rollout.id, lambda rollout: rollout.phase == "succeeded")

    async def let_serve(self, server_id: str | None) -> None:
        server = await self.engine.store.get(Server, str(server_id))
        await to_thread.run_sync(self.puppets.let_serve, server.name)

    async def wait_for(self, kind: type[R], record_id: str, holds: Callable[[R], bool]) -> R:
        found = await self.engine.wait_until(kind, record_id, holds, LIMIT_SECONDS)
        assert holds(found), found
        return found

    async def wait_until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, "it did not come about"
            await asyncio.sleep(LOOK_SECONDS)

    async def active(self) -> str:
        """The server that users get."""
        active = (await self.proxy.read_traffic("default")).active
        assert active is not None
        return active.server_id

    async def wait_for_server(self, besides: set[str]) -> str:
        """Another one than these, as soon as it runs."""
        found: set[str] = set()

        async def come_about() -> bool:
            running = {each.owner for each in await self.runtime.list_owned() if each.running}
            found.update(running - besides)
            return bool(found)

        await self.wait_until(come_about)
        return found.pop()

    async def owners(self) -> list[str]:
        """Of every container of ours, running or not, sorted."""
        label = {"label": f"switchyard.instance={self.instance}"}
        listed = await to_thread.run_sync(lambda: self.puppets.docker.containers(all=True, filters=label))
        return sorted(each["Labels"]["switchyard.owner"] for each in listed)


@asynccontextmanager
async def open_engine_house(puppets: Puppets, folder: Path) -> AsyncIterator[EngineHouse]:
    """Leading, with version 1 in service."""
    house = EngineHouse(puppets, folder)
    try:
        async with house.engine.running():
            await house.wait_until(house.leads)
            await house.roll_out(house.add_version())
            yield house
    finally:
        await to_thread.run_sync(puppets.remove_containers, house.instance)
