"""Rollouts, steering, deaths, outages in any order, and the router killed before or after any one effect.

What must hold at every moment, and what must be true once everybody has had time.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.core.errors import ProxyUnavailable, RegistryUnavailable, SwitchyardError
from router.core.models import Rollout, RolloutPhase
from router.core.strategies import AnalysisPlan, Strategy
from router.core.traffic import Traffic
from router.engine.commands import Caller, RolloutRequest
from router.engine.engine import Engine
from router.proxies.memory import MemoryProxy
from router.stores.base import Change, Update
from router.stores.memory import MemoryStore
from tests.unit.engine.yard import Yard

VERSIONS = 4
UNWATCHED = AnalysisPlan(enabled=False)
PLANS = [
    Strategy(bake=0),
    Strategy(bake=20),
    Strategy(promotion="manual", bake=0),
    Strategy(if_tight="replace", bake=5),
    Strategy.model_validate({"strategy": "canary", "steps": {"linear": 4}, "hold": 10, "bake": 10}),
    Strategy.model_validate(
        {"strategy": "canary", "steps": [10, 50], "hold": 5, "bake": 0, "analysis": UNWATCHED, "sticky": True}
    ),
]
WATCHED = [PLANS[1], PLANS[4]]
IMAGES = ["sources/iris", "sources/iris", "sources/slow", "sources/nan"]
LONG_SECONDS = 60.0  # past every hold, bake, deadline and warm window


@dataclass
class Fate:
    """How many effects the router has left, if that is decided."""

    left: int | None = None

    async def step(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            await anyio.sleep_forever()
        self.left -= 1


class Mortal:
    """A driver whose caller may die before or after any call of it."""

    def __init__(self, driver: Any, fate: Fate) -> None:
        self._driver, self._fate = driver, fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if not asyncio.iscoroutinefunction(found) or name == "close":
            return found

        async def call(*arguments: Any, **options: Any) -> Any:
            await self._fate.step()
            result = await found(*arguments, **options)
            await self._fate.step()
            return result

        return call


class BreachNotes(MemoryStore):
    """At which change of traffic each breach was written down: by the candidate's server."""

    def __init__(self, proxy: MemoryProxy) -> None:
        super().__init__()
        self._proxy = proxy
        self.breaches: dict[str, int] = {}

    async def apply(self, *changes: Change) -> None:
        await super().apply(*changes)
        for change in changes:
            after = change.after if isinstance(change, Update) else None
            if isinstance(after, Rollout) and after.failure and after.failure.code == "analysis_failed":
                self.breaches.setdefault(str(after.server_id), len(self._proxy.history))


class MortalYard(Yard):
    def __init__(self, folder: Path, **policy: object) -> None:
        super().__init__(folder, **policy)
        self.store = self.notes = BreachNotes(self.proxy)

    def make_engine(self) -> Engine:
        self.fate = Fate()
        engine = super().make_engine()
        context = engine.context
        for port in ("runtime", "proxy", "registry", "store"):
            setattr(context, port, Mortal(getattr(context, port), self.fate))
        context.ledger.store = context.store
        return engine


class RolloutsInAnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.yard = MortalYard(
            Path(self.folder.name), drain_grace=5.0, warm_seconds=30.0, alias_poll_seconds=7.0
        )
        self.yard.answers.unready.add("sources/slow")
        self.yard.answers.predictions["sources/nan"] = [float("nan")]
        for _ in range(VERSIONS):
            self.yard.add_version()
        self.engine: Engine | None = None
        self.router: asyncio.Task[None] | None = None
        self.calls: list[asyncio.Task[None]] = []
        self.taken_back: set[str] = set()  # servers whose breach has been looked at

    # --- the router's life ------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def _live(self, started: asyncio.Event, ended: asyncio.Event) -> None:
        async with self.yard.run() as self.engine:
            started.set()
            await ended.wait()

    async def _start(self) -> None:
        started, self.ended = asyncio.Event(), asyncio.Event()
        self.router = asyncio.create_task(self._live(started, self.ended))
        await started.wait()
        await self.yard.clock.settle()

    async def _kill(self) -> None:
        assert self.router is not None
        for call in self.calls:
            call.cancel()
        self.ended.set()
        await self.router
        await asyncio.gather(*self.calls, return_exceptions=True)
        self.calls.clear()
        self.yard.runtime.forget_callbacks()

    async def _call(self, command: Callable[[Engine], Awaitable[object]]) -> None:
        """As a client: an error is an answer. It may still wait when we go on."""
        engine = self.engine
        assert engine is not None

        async def run() -> None:
            with suppress(SwitchyardError):
                await command(engine)

        self.calls.append(asyncio.create_task(run()))
        await self.yard.clock.settle()

    @initialize()
    def begin(self) -> None:
        self.run(self._start())

    @rule(left=st.integers(0, 60), seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def die_after_some_effects(self, left: int, seconds: float) -> None:
        self.yard.fate.left = left
        self.run(self.yard.clock.advance(seconds))

    @rule()
    def come_back(self) -> None:
        self.run(self._kill())
        self.run(self._start())

    # --- what people do ---------------------------------------------------------------------------

    @rule(
        version=st.integers(1, VERSIONS),
        image=st.sampled_from(IMAGES),
        plan=st.sampled_from(PLANS),
    )
    def roll(self, version: int, image: str, plan: Strategy) -> None:
        wanted = RolloutRequest("Iris", version, serve_image=image, plan=plan, wait_ready_seconds=20)
        self.run(self._call(lambda engine: engine.commands.start_rollout(wanted, Caller())))

    @rule()
    def roll_back(self) -> None:
        self.run(self._call(lambda engine: engine.commands.roll_back(Caller())))

    @rule(call=st.sampled_from(["abort", "pause", "resume", "promote"]))
    def steer(self, call: str) -> None:
        rollout = self.newest()
        if rollout is not None:
            self.run(self._call(lambda engine: getattr(engine.steering, call)(rollout.id)))

    @rule(weight=st.sampled_from([0.0, 33.0, 100.0]))
    def set_weight(self, weight: float) -> None:
        rollout = self.newest()
        if rollout is not None:
            self.run(self._call(lambda engine: engine.steering.set_weight(rollout.id, weight)))

    @rule(version=st.integers(1, VERSIONS))
    def move_the_alias(self, version: int) -> None:
        with suppress(RegistryUnavailable):
            self.run(self.yard.registry.set_alias("Iris", "deployed", version))

    # --- what happens -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.3, 3.0, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.run(self.yard.clock.advance(seconds))

    @rule(side=st.sampled_from(["active", "candidate"]))
    def server_dies(self, side: str) -> None:
        upstream = getattr(self.traffic(), side)
        if upstream is not None and upstream.server_id in self.yard.runtime.running():
            self.yard.runtime.end(upstream.server_id, 137)
            self.run(self.yard.clock.settle())

    @rule(requests=st.integers(1, 200), status=st.sampled_from([200, 500]))
    def users_ask(self, requests: int, status: int) -> None:
        candidate = self.traffic().candidate
        if candidate is not None:
            self.yard.proxy.behaviour[candidate.address] = status, 0.001
        for _ in range(requests):
            self.yard.proxy.answer("default")
        self.run(self.yard.clock.advance(0.5))

    @rule(plan=st.sampled_from(WATCHED))
    def a_new_version_breaks(self, plan: Strategy) -> None:
        """Users go on asking for long enough that a watch must find it."""
        active = self.traffic().active
        self.users_ask(100, 200)
        self.roll(active.model_version % VERSIONS + 1 if active else 1, IMAGES[0], plan)
        rollout, traffic = self.newest(), self.traffic()
        for upstream in (traffic.active, traffic.candidate):
            if rollout is not None and upstream is not None and upstream.server_id == rollout.server_id:
                self.yard.proxy.behaviour[upstream.address] = 500, 0.001
        for _ in range(4):
            for _ in range(50):
                self.yard.proxy.answer("default")
            self.run(self.yard.clock.advance(0.5))

    @rule(there=st.booleans())
    def registry_goes_and_comes(self, there: bool) -> None:
        self.yard.registry.fail_with(None if there else RegistryUnavailable())
        self.run(self.yard.clock.advance(1))

    @rule(there=st.booleans())
    def proxy_goes_and_comes(self, there: bool) -> None:
        self.yard.proxy.fail_with = None if there else ProxyUnavailable()
        self.run(self.yard.clock.advance(1))

    @rule(left=st.sampled_from([None, 10 * 2**20]))
    def memory_is_short(self, left: int | None) -> None:
        self.yard.runtime.memory_left = left

    # --- what must hold ---------------------------------------------------------------------------

    def newest(self) -> Rollout | None:
        found = self.run(self.yard.store.find(Rollout, newest_first=True, limit=1))
        return found[0] if found else None

    def traffic(self) -> Any:
        return self.yard.proxy._traffic["default"]

    @invariant()
    def only_servers_that_have_predicted_are_named(self) -> None:
        proved = {owner for owner, path in self.yard.answers.asked if path == "/invocations"}
        for _, traffic in self.yard.proxy.history:
            for upstream in (traffic.active, traffic.candidate):
                assert upstream is None or upstream.server_id in proved

    @invariant()
    def users_who_had_a_model_keep_one(self) -> None:
        served = [traffic.active is not None for _, traffic in self.yard.proxy.history]
        assert served == sorted(served)

    @invariant()
    def at_most_one_rollout_holds_the_endpoint(self) -> None:
        rollouts = self.run(self.yard.store.find(Rollout))
        assert sum(rollout.holds_endpoint for rollout in rollouts) <= 1

    @invariant()
    def after_a_breach_its_share_is_gone_and_never_rises_again(self) -> None:
        notes, history = self.yard.notes, self.yard.proxy.history
        for server, noted in notes.breaches.items():
            shares = [share_of(server, traffic) for _, traffic in history[max(0, noted - 1) :]]
            assert shares == sorted(shares, reverse=True), (server, shares)
            new = server not in self.taken_back
            self.taken_back.add(server)
            beside = self.traffic().candidate
            if new and self.yard.fate.left is None:
                assert beside is None or beside.server_id != server, server

    def teardown(self) -> None:
        try:
            self.run(self._heal())
            self.check_the_end()
        finally:
            self.run(self._kill())
            self.loop.close()
            self.folder.cleanup()

    async def _heal(self) -> None:
        self.yard.registry.fail_with(None)
        self.yard.proxy.fail_with = None
        self.yard.runtime.memory_left = None
        await self._kill()
        await self._start()
        await self.yard.clock.advance(60)
        for rollout in await self.yard.store.find(Rollout, phases=[RolloutPhase.SHIFTING]):
            await self._call(lambda engine, waiting=rollout: engine.steering.abort(waiting.id))  # type: ignore[misc]
        for _ in range(3):
            await self.yard.clock.advance(LONG_SECONDS)

    def check_the_end(self) -> None:
        rollouts = self.run(self.yard.store.find(Rollout))
        assert [rollout for rollout in rollouts if not rollout.phase.terminal] == []
        traffic, running = self.traffic(), self.yard.runtime.running()
        assert traffic.candidate is None
        if traffic.active is None:
            assert running == []
            return
        assert running == [traffic.active.server_id]
        assert self.run(self.yard.alias()) == traffic.active.model_version


def share_of(server: str, traffic: Traffic) -> float:
    if traffic.active is not None and traffic.active.server_id == server:
        return 100.0
    return traffic.weight if traffic.candidate is not None and traffic.candidate.server_id == server else 0.0


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Any:
    """A log of fifty thousand steps helps nobody."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.configure(**before)


TestRolloutsInAnyOrder = RolloutsInAnyOrder.TestCase
TestRolloutsInAnyOrder.settings = settings(
    max_examples=1000,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
