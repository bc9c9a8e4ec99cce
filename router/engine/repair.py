"""Gives an endpoint a live server again when the active one has died.

The warm server that users had before takes over at once; without one, a new server of the same version and
image is launched and proved. Meanwhile the proxy holds requests that find nobody, so they are late and not
lost.
"""

from dataclasses import dataclass

import structlog
from anyio.abc import TaskGroup

from router.core.errors import SwitchyardError
from router.core.models import RolloutPhase, Server, ServerPhase
from router.core.workload import WorkloadState
from router.engine.context import Context, upstream_of
from router.engine.holding import find_holder
from router.engine.ledger import endpoint_topic
from router.engine.probing import ProbeFailed
from router.engine.rollbacks import Rollbacks
from router.engine.servers import SPARE, Servers
from router.runtimes.base import Image

# The first two come at once: a server that dies once, or whose replacement meets the same bad request.
BACKOFF_SECONDS = (0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
CALM_SECONDS = 60.0  # a server that lived this long starts the count again

log = structlog.get_logger()


@dataclass
class Attempts:
    count: int = 0
    last: float = 0.0
    running: bool = False

    def next_at(self) -> float:
        return self.last + BACKOFF_SECONDS[min(self.count, len(BACKOFF_SECONDS) - 1)]


class Repairs:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._rollbacks = Rollbacks(context, servers)
        self._attempts: dict[str, Attempts] = {}

    async def look(
        self, endpoint: str, workloads: dict[str, WorkloadState], group: TaskGroup
    ) -> float | None:
        """Repair if the active server is dead. Returns when to look again, None if all is well."""
        active = (await self._context.proxy.read_traffic(endpoint)).active
        if active is None or _runs(workloads.get(active.server_id)):
            return None
        if _runs(await self._context.runtime.inspect(active.server_id)):  # launched after the listing began
            return None
        if await self._is_being_replaced(endpoint, active.server_id):
            return None
        dead = await self._context.store.get(Server, active.server_id)
        if await self._switch_to_spare(endpoint, dead, workloads):
            return None
        attempts = self._attempts.setdefault(endpoint, Attempts())
        now = self._context.clock.now()
        if now - attempts.last > CALM_SECONDS:
            attempts.count = 0
        if attempts.running:
            return None
        if now < attempts.next_at():
            return attempts.next_at()
        attempts.running, attempts.last, attempts.count = True, now, attempts.count + 1
        group.start_soon(self._replace, dead, attempts)
        return None

    async def _is_being_replaced(self, endpoint: str, server_id: str) -> bool:
        """A rollout has stopped it for want of memory: its candidate comes, or it fails and ends."""
        holder = await find_holder(self._context.store, endpoint)
        if holder is None or holder.replaces != server_id or holder.phase.switched:
            return False
        return holder.phase is not RolloutPhase.ABORTING

    async def _switch_to_spare(
        self, endpoint: str, dead: Server, workloads: dict[str, WorkloadState]
    ) -> bool:
        spares = [
            spare
            for spare in await self._servers.live(endpoint)
            if spare.phase in SPARE
            and _runs(workloads.get(spare.id))
            and await self._rollbacks.may_serve_again(spare)
        ]
        if not spares:
            return False
        return await self._switch(
            dead, spares[-1], f"server {dead.name} has died: {spares[-1].name} takes over"
        )

    async def _switch(self, dead: Server, heir: Server, text: str) -> bool:
        """Under the lock, and only if the dead one still has the traffic."""
        async with self._context.traffic_locks[dead.endpoint]:
            traffic = await self._context.proxy.read_traffic(dead.endpoint)
            if traffic.active is None or traffic.active.server_id != dead.id:
                return False
            heir = await self._context.store.get(Server, heir.id)
            if heir.phase not in SPARE | {ServerPhase.STARTING}:
                return False
            healed = traffic.model_copy(update={"active": upstream_of(heir)})  # a candidate keeps its share
            await self._context.proxy.set_traffic(dead.endpoint, healed)
            log.warning(text, endpoint=dead.endpoint)
            await self._ledger.apply(self._servers.has_traffic(heir))
            if holder := await find_holder(self._context.store, dead.endpoint):
                self._ledger.wakeups.notify(holder.id)  # what it looks at has changed
        return True

    async def _replace(self, dead: Server, attempts: Attempts) -> None:
        try:
            heir = await self._launch_heir(dead)
            deadline = self._context.clock.now() + self._context.policy.health_timeout
            try:
                await self._servers.prove(heir, deadline)
            except ProbeFailed as failed:
                reason = f"it did not prove itself as a replacement: {failed}"
                await self._ledger.apply(self._servers.send_away(heir, reason))
                return
            await self._switch(dead, heir, f"server {dead.name} has died: {heir.name} replaces it")
        except SwitchyardError as error:
            log.warning("a replacement failed", endpoint=dead.endpoint, error=error.message)
        finally:
            attempts.running = False
            self._ledger.wakeups.notify(endpoint_topic(dead.endpoint))

    async def _launch_heir(self, dead: Server) -> Server:
        """The one that a router before us has begun, or a new one."""
        for server in await self._servers.live(dead.endpoint):
            if server.replaces == dead.id and server.phase is ServerPhase.STARTING:
                heir = server
                break
        else:
            heir = await self._servers.draft(
                endpoint=dead.endpoint,
                model_name=dead.model_name,
                version=dead.version,
                run_id=dead.run_id,
                image=Image(dead.serve_image, dead.serve_digest),
                replaces=dead,
            )
            await self._ledger.apply(
                self._ledger.opened(heir, f"server {heir.name} is to replace {dead.name}")
            )
        launched = await self._servers.launch(heir)
        await self._ledger.apply(launched)
        return launched.after


def _runs(workload: WorkloadState | None) -> bool:
    return workload is not None and workload.running
