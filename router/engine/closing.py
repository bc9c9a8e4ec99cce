"""Takes a removed endpoint apart: traffic first, then its servers, then routes, slots and alias.

Each look does what is left to be done, so a router that was killed in the middle is followed by one that goes
on. Users of the endpoint get 503 `no_model` while its servers finish what they have, then 404.
"""

import structlog
from anyio.abc import TaskGroup

from router.core.errors import SwitchyardError, UnknownEndpoint
from router.core.models import Endpoint, EndpointPhase, Rollout, RolloutPhase, Server, ServerPhase
from router.core.traffic import Traffic
from router.engine.aliasing import forget_alias
from router.engine.chores import Chores
from router.engine.context import Context
from router.engine.servers import Servers

log = structlog.get_logger()
UNFINISHED = frozenset(phase for phase in RolloutPhase if not phase.terminal)


class Closing:
    def __init__(self, context: Context, servers: Servers, chores: Chores) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._chores = chores
        self._empty: set[str] = set()  # nothing of theirs runs: they go together, for each reload costs

    async def send_servers_away(self, name: str) -> list[Server]:
        """Those that still live, all on their way out."""
        await self._take_traffic_away(name)
        servers = await self._servers.live(name)
        staying = [server for server in servers if server.phase is not ServerPhase.DRAINING]
        if not staying:
            return servers
        reason = f"endpoint {name} is removed"
        await self._ledger.apply(*(self._servers.send_away(server, reason) for server in staying))
        return await self._servers.live(name)

    async def _take_traffic_away(self, name: str) -> None:
        """A server is stopped only when no slot directory names it."""
        async with self._context.traffic_locks[name]:
            try:
                if await self._context.proxy.read_traffic(name) != Traffic():
                    await self._context.proxy.set_traffic(name, Traffic())
            except UnknownEndpoint:
                log.debug("its slots are gone already", endpoint=name)

    async def remove(self, name: str, group: TaskGroup) -> None:
        """Once its rollouts have ended too: the end of each is an event."""
        if not await self._context.store.find(Rollout, phases=UNFINISHED, endpoint=name):
            self._empty.add(name)
            self._chores.start(group, "remove endpoints", self._remove_empty)

    async def _remove_empty(self) -> None:
        while self._empty:
            names = sorted(self._empty)
            records = [await self._context.store.get(Endpoint, name) for name in names]
            # A late look may name one that is gone already, and has been added again.
            closing = [record.id for record in records if record.phase is EndpointPhase.CLOSING]
            if closing:
                await self._context.proxy.remove_endpoints(closing)
            self._empty.difference_update(names)
            for name in closing:
                await self._finish(name)

    async def _finish(self, name: str) -> None:
        endpoint = await self._context.store.get(Endpoint, name)
        try:
            await forget_alias(self._context, endpoint)
        except SwitchyardError as error:  # the next look tries again; the others need not wait for it
            if endpoint.waiting_on != error.message:
                await self._ledger.move(endpoint, f"waiting: {error.message}", waiting_on=error.message)
            return
        gone = {"alias_model": None, "alias_version": None, "alias_carriers": (), "alias_writes": ()}
        await self._ledger.move(endpoint, f"endpoint {name} is gone", phase=EndpointPhase.CLOSED, **gone)
