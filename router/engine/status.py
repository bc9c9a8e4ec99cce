"""What is serving, whether it answers, and whether everything that the router stands on is there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from anyio import create_task_group, move_on_after

from router.core.errors import SwitchyardError, UnknownEndpoint
from router.core.models import Server, ServerPhase
from router.core.traffic import DEFAULT_ENDPOINT, Upstream
from router.engine.aliasing import alias_follows
from router.engine.context import Context
from router.engine.endpoint_names import alias_of, require_open
from router.engine.ledger import endpoint_topic
from router.engine.probing import ProbeFailed
from router.engine.racing import wait_any

PING_SECONDS = 2.0  # between two, and for one: a server that hangs is not healthy
PINGS_PER_SECOND = 10  # of all endpoints together; where they are many, each has its turn less often
STALE_SECONDS = 5.0  # an older answer is asked for again when somebody wants to know
CHECK_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Serving:
    """The active server of an endpoint; `server` is None before the first rollout."""

    alias: str  # the endpoint's, in the registry
    active: Upstream | None = None
    server: Server | None = None
    since: float | None = None  # epoch seconds of the switch to it
    alias_in_step: bool = False  # whether the registry's alias points to it already
    healthy: bool = False


@dataclass(frozen=True)
class Answer:
    server_id: str
    healthy: bool
    at: float


class Health:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._answers: dict[str, Answer] = {}  # by endpoint
        self._watched = 0

    async def watch(self, endpoint: str) -> None:
        """Ping the active server every few seconds, and at once when it is another one. Never returns."""
        self._watched += 1
        try:
            await self._watch(endpoint)
        finally:
            self._watched -= 1
            self._answers.pop(endpoint, None)

    async def _watch(self, endpoint: str) -> None:
        clock = self._context.clock
        pinged, due = "", clock.now()
        while True:
            changed = self._context.ledger.wakeups.take(endpoint_topic(endpoint))
            pause = max(PING_SECONDS, self._watched / PINGS_PER_SECOND)
            try:
                active = (await self._context.proxy.read_traffic(endpoint)).active
                if active is not None and (active.server_id != pinged or clock.now() >= due):
                    pinged, due = active.server_id, clock.now() + pause
                    await self._ping(endpoint, active)
                elif active is not None and not await self._runs(active):
                    self._note(endpoint, active, healthy=False)
            except UnknownEndpoint:
                log.debug("it has no slots: the supervisor sees to that", endpoint=endpoint)
            except SwitchyardError as error:
                log.warning("cannot see the active server", endpoint=endpoint, error=error.message)
            # A switch makes several changes close together: they neither ask for a ping nor put one off.
            await wait_any(clock, max(0.0, due - clock.now()) or pause, changed)

    async def _runs(self, active: Upstream) -> bool:
        state = await self._context.runtime.inspect(active.server_id)
        return state is not None and state.running

    async def _ping(self, endpoint: str, active: Upstream) -> bool:
        try:
            await self._context.prober.ping(active.address, PING_SECONDS)
        except ProbeFailed:
            answers = False
        else:
            answers = True
        self._note(endpoint, active, healthy=answers)
        return answers

    def _note(self, endpoint: str, active: Upstream, *, healthy: bool) -> None:
        self._answers[endpoint] = Answer(active.server_id, healthy, self._context.clock.now())

    async def serving(self, endpoint: str, *, fresh: bool = True) -> Serving:
        """`fresh`: ping where the last answer is not of now. Raises UnknownEndpoint."""
        context = self._context
        record = await require_open(context, endpoint)
        active = (await context.proxy.read_traffic(endpoint)).active
        alias = alias_of(context.policy, record)
        if active is None:
            return Serving(alias=alias)
        server = await context.ledger.latest(Server, active.server_id)
        return Serving(
            alias=alias,
            active=active,
            server=server,
            since=server.entered.get(str(ServerPhase.READY), server.updated_at),
            alias_in_step=alias_follows(record, active),
            healthy=await self._is_healthy(endpoint, active, fresh=fresh),
        )

    async def _is_healthy(self, endpoint: str, active: Upstream, *, fresh: bool) -> bool:
        known = self._answers.get(endpoint)
        if known is not None and known.server_id == active.server_id:
            age = self._context.clock.now() - known.at
            if age < STALE_SECONDS or not fresh:
                return known.healthy
        return await self._ping(endpoint, active)

    async def ready(self) -> dict[str, str]:
        """`ok`, or what is wrong, for each thing that the router stands on."""
        context = self._context
        parts = {
            "registry": context.registry.check,
            "runtime": context.runtime.check,
            "proxy": self._check_proxy,
            "store": context.store.check,
        }
        answers = dict.fromkeys(parts, f"does not answer within {CHECK_SECONDS:g} s")

        async def ask(name: str, check: Callable[[], Awaitable[None]]) -> None:
            with move_on_after(CHECK_SECONDS):
                try:
                    await check()
                    answers[name] = "ok"
                except SwitchyardError as error:
                    answers[name] = error.message

        async with create_task_group() as group:
            for name, check in parts.items():
                group.start_soon(ask, name, check)
        return answers

    async def _check_proxy(self) -> None:
        await self._context.proxy.check()
        await self._context.proxy.read_traffic(DEFAULT_ENDPOINT)
