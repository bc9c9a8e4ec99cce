"""What is serving, whether it answers, and whether everything that the router stands on is there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from anyio import create_task_group, move_on_after

from router.core.errors import SwitchyardError
from router.core.models import Endpoint, Server, ServerPhase
from router.core.traffic import DEFAULT_ENDPOINT, Upstream
from router.engine.aliasing import alias_follows
from router.engine.context import Context
from router.engine.ledger import endpoint_topic
from router.engine.probing import ProbeFailed
from router.engine.racing import wait_any

PING_SECONDS = 2.0  # between two, and for one: a server that hangs is not healthy
CHECK_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Serving:
    """The active server of an endpoint; `server` is None before the first rollout."""

    active: Upstream | None = None
    server: Server | None = None
    since: float | None = None  # epoch seconds of the switch to it
    alias_in_step: bool = False  # whether the registry's alias points to it already
    healthy: bool = False


class Health:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._answers: dict[str, tuple[str, bool]] = {}  # by endpoint: server, whether it answered

    async def watch(self, endpoint: str) -> None:
        """Ping the active server every few seconds, and at once when it is another one. Never returns."""
        clock = self._context.clock
        pinged, due = "", clock.now()
        while True:
            changed = self._context.ledger.wakeups.take(endpoint_topic(endpoint))
            try:
                active = (await self._context.proxy.read_traffic(endpoint)).active
                if active is not None and (active.server_id != pinged or clock.now() >= due):
                    pinged, due = active.server_id, clock.now() + PING_SECONDS
                    await self._ping(endpoint, active)
                elif active is not None and not await self._runs(active):
                    self._answers[endpoint] = active.server_id, False
            except SwitchyardError as error:
                log.warning("cannot see the active server", endpoint=endpoint, error=error.message)
            # A switch makes several changes close together: they neither ask for a ping nor put one off.
            await wait_any(clock, max(0.0, due - clock.now()) or PING_SECONDS, changed)

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
        self._answers[endpoint] = active.server_id, answers
        return answers

    async def serving(self, endpoint: str) -> Serving:
        """Raises UnknownEndpoint."""
        context = self._context
        active = (await context.proxy.read_traffic(endpoint)).active
        if active is None:
            return Serving()
        pinged, healthy = self._answers.get(endpoint, ("", False))
        if pinged != active.server_id:
            healthy = await self._ping(endpoint, active)
        server = await context.ledger.latest(Server, active.server_id)
        record = await context.ledger.latest(Endpoint, endpoint)
        return Serving(
            active=active,
            server=server,
            since=server.entered.get(str(ServerPhase.READY), server.updated_at),
            alias_in_step=alias_follows(record, active),
            healthy=healthy,
        )

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
