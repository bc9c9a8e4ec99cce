"""A whole engine over memory drivers and a fake clock, with servers that a test scripts."""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from router.core.models import Rollout, Server, Training
from router.core.strategies import Strategy
from router.engine.commands import Caller, RolloutRequest, TrainingRequest
from router.engine.context import Context, Policy
from router.engine.engine import Engine
from router.engine.ledger import Ledger
from router.engine.probing import Prober
from router.engine.spec_files import SpecFiles
from router.proxies.memory import MemoryProxy
from router.registries.memory import MemoryRegistry
from router.runtimes.memory import MemoryRuntime
from router.stores.memory import MemoryStore
from tests.fake_clock import FakeClock

EXAMPLE = b'{"inputs": [[1.0, 2.0]]}'
SPEC = """
iris:
  source: sources/iris
  timeout: 600
  env: {REGISTERED_MODEL_NAME: Iris}
"""


class CountedIds:
    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"


class FreeLock:
    def __init__(self) -> None:
        self.held_by_another = False

    def try_acquire(self) -> bool:
        return not self.held_by_another

    def release(self) -> None: ...


@dataclass
class Answers:
    """What a server at an address answers; by default it is well."""

    runtime: MemoryRuntime
    unready: set[str] = field(default_factory=set)  # serve images that do not answer /ping
    predictions: dict[str, object] = field(default_factory=dict)  # by serve image
    asked: list[tuple[str, str]] = field(default_factory=list)  # (server's owner, path)

    def answer(self, request: httpx.Request) -> httpx.Response:
        address = f"{request.url.host}:{request.url.port}"
        workload = next((w for w in self.runtime.launched if self._address(w.owner) == address), None)
        if workload is None or workload.owner not in self.runtime.running():
            raise httpx.ConnectError("refused", request=request)
        self.asked.append((workload.owner, request.url.path))
        image = workload.image.reference
        if request.url.path == "/ping":
            return httpx.Response(503 if image in self.unready else 200)
        content = json.dumps({"predictions": self.predictions.get(image, [1.5])})
        return httpx.Response(200, content=content)

    def _address(self, owner: str) -> str | None:
        state = self.runtime._states.get(owner)
        return state.address if state else None


class Yard:
    def __init__(self, folder: Path, **policy: object) -> None:
        (folder / "iris.yaml").write_text(SPEC)
        self.folder = folder
        self.clock = FakeClock()
        self.ids = CountedIds()
        self.runtime = MemoryRuntime(clock=self.clock)
        self.proxy = MemoryProxy()
        self.registry = MemoryRegistry()
        self.store = MemoryStore()
        self.answers = Answers(self.runtime)
        self.lock = FreeLock()
        self.policy = Policy(
            mlflow_tracking_uri="http://mlflow:5000",
            public_url="http://localhost:9000",
            serve_image="sources/iris",
            plan=Strategy(bake=0),
            **policy,  # type: ignore[arg-type]
        )

    def make_engine(self) -> Engine:
        context = Context(
            runtime=self.runtime,
            proxy=self.proxy,
            registry=self.registry,
            store=self.store,
            specs=SpecFiles(self.folder, {}, self.clock),
            prober=Prober(self.clock, transport=httpx.MockTransport(self.answers.answer)),
            clock=self.clock,
            ids=self.ids,
            policy=self.policy,
            ledger=Ledger(self.store, self.clock),
        )
        return Engine(context, self.lock)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Engine]:
        """A router from its start to its end; run it again for the next one on the same drivers."""
        engine = self.make_engine()
        async with engine.running():
            await self.clock.settle()
            yield engine

    async def train(self, engine: Engine, *, then_roll: bool = False) -> Training:
        """A training that runs; its workload waits for the test to end it."""
        training_id = await engine.commands.start_training(
            TrainingRequest(trainer="iris", then_roll=then_roll), Caller()
        )
        await self.clock.settle()
        return await engine.store.get(Training, training_id)

    async def roll(self, engine: Engine, version: int, **fields: object) -> Rollout:
        """A rollout of a version of `Iris`, as far as it goes without time passing."""
        request = RolloutRequest(name="Iris", ref=version, **fields)  # type: ignore[arg-type]
        rollout_id = await engine.commands.start_rollout(request, Caller())
        await self.clock.settle()
        return await engine.store.get(Rollout, rollout_id)

    async def roll_back(self, engine: Engine) -> Rollout:
        rollout_id = await engine.commands.roll_back(Caller())
        await self.clock.settle()
        return await engine.store.get(Rollout, rollout_id)

    def add_version(self) -> int:
        return self.registry.add_version("Iris", input_example=EXAMPLE).version

    async def served_version(self) -> int | None:
        active = (await self.proxy.read_traffic("default")).active
        return active.model_version if active else None

    async def server(self, server_id: str | None) -> Server:
        return await self.store.get(Server, str(server_id))

    async def alias(self) -> int | None:
        return (await self.registry.aliases("Iris")).get("deployed")
