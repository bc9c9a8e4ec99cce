"""Watches every endpoint: what traffic names must run, what it does not name must go in its time.

One pass looks at traffic, records and workloads, and does what follows from them; it is repeated on every
event and, in case one was missed, every few seconds. So a reboot, a crash and a `kill -9` are one case.
"""

from functools import partial

import structlog
from anyio.abc import TaskGroup

from router.core.actions import MoveServer, StopServer, Wait, WatchDrain
from router.core.decide import ServerSeen, decide_server
from router.core.errors import ProxyUnavailable, StaleRecord, SwitchyardError, UnknownEndpoint
from router.core.models import Endpoint, EndpointPhase, Rollout, Server, ServerPhase
from router.core.traffic import Traffic, Upstream
from router.core.workload import WorkloadState
from router.engine.aliasing import alias_follows, sync_alias
from router.engine.chores import Chores
from router.engine.closing import Closing
from router.engine.context import Context, upstream_of
from router.engine.holding import find_holder
from router.engine.ledger import endpoint_topic
from router.engine.listing import SharedListing
from router.engine.racing import wait_any
from router.engine.repair import Repairs
from router.engine.rollbacks import Rollbacks
from router.engine.servers import Servers
from router.stores.base import Insert

DRAIN_LOOK_SECONDS = 0.2
FAILED_LOOK_SECONDS = 1.0  # users may be waiting for what it would have done

log = structlog.get_logger()


class Supervisor:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._repairs = Repairs(context, servers)
        self._chores = Chores()
        self._workloads = SharedListing(context.runtime)
        self._closing = Closing(context, servers, self._chores)
        self._rollbacks = Rollbacks(context, servers)
        self._lost: set[str] = set()  # endpoints whose slots may have come back older than they were

    async def watch(self, endpoint: str, group: TaskGroup) -> None:
        """Returns when the endpoint is gone; an error is logged and the next pass tries again."""
        pause = self._context.policy.sweep_seconds
        until: float | None
        while True:
            changed = self._ledger.wakeups.take(endpoint_topic(endpoint))
            try:
                if (await self._ledger.latest(Endpoint, endpoint)).phase.terminal:
                    return
                is_lost = endpoint in self._lost
                until = await (self._put_back(endpoint) if is_lost else self.look(endpoint, group))
            except StaleRecord:
                continue
            except UnknownEndpoint as error:
                log.warning("an endpoint is put back", endpoint=endpoint, error=error.message)
                until = await self._put_back(endpoint)
            except SwitchyardError as error:
                log.warning("a look at the endpoint failed", endpoint=endpoint, error=error.message)
                until = self._context.clock.now() + FAILED_LOOK_SECONDS
            except Exception:
                log.exception("a look at the endpoint broke", endpoint=endpoint)
                until = None
            now = self._context.clock.now()
            # All at the same moments, so that one listing of workloads serves every endpoint.
            sweep = pause - now % pause
            seconds = sweep if until is None else min(sweep, until - now)
            await wait_any(self._context.clock, seconds, changed)

    async def _put_back(self, endpoint: str) -> float:
        """Somebody has deleted what users' requests go by: each of them fails until it is there again."""
        self._lost.add(endpoint)
        try:
            await self._context.proxy.ensure_endpoints([endpoint])
            await self._give_back(endpoint)
            self._lost.discard(endpoint)
        except SwitchyardError as error:
            log.warning("an endpoint cannot be put back", endpoint=endpoint, error=error.message)
        return self._context.clock.now() + FAILED_LOOK_SECONDS

    async def _give_back(self, endpoint: str) -> None:
        """An older state may have come back, or none. Then the store is what knows who had the traffic.

        A share is left out: the rollout of a candidate that should have one gives it again.
        """
        async with self._context.traffic_locks[endpoint]:
            traffic = await self._context.proxy.read_traffic(endpoint)
            ready = [s for s in await self._servers.live(endpoint) if s.phase is ServerPhase.READY]
            had = [upstream_of(server) for server in ready if await self._rollbacks.may_serve_again(server)]
            active = traffic.active if traffic.active in had or not had else had[0]
            if traffic != Traffic(active=active):
                await self._context.proxy.set_traffic(endpoint, Traffic(active=active))
        if holder := await find_holder(self._context.store, endpoint):
            self._ledger.wakeups.notify(holder.id)

    async def look(self, endpoint: str, group: TaskGroup) -> float | None:
        """One pass. Returns when the next one is due at the latest (epoch seconds), None if nothing is."""
        if (await self._ledger.latest(Endpoint, endpoint)).phase is EndpointPhase.CLOSING:
            return await self._take_apart(endpoint, group)
        async with self._context.traffic_locks[endpoint]:
            if await self._context.proxy.mend_traffic(endpoint):
                log.warning("what the proxy reads was written anew: it had been changed", endpoint=endpoint)
            traffic = await self._context.proxy.read_traffic(endpoint)
            servers = await self._servers.live(endpoint)
            if traffic.active is not None and all(s.id != traffic.active.server_id for s in servers):
                await self._adopt(endpoint, traffic.active)
                servers = await self._servers.live(endpoint)
        # After the records, so that a workload missing here has really ended. What is done from now on needs
        # no lock: a switch moves the record first, and then the guard refuses what we have decided.
        workloads = await self._workloads.read()
        # First: users wait for it, and what fails below (a full disk, say) must not keep it from them.
        repair_due = await self._repairs.look(endpoint, workloads, group)
        due = [await self._care(server, traffic, workloads.get(server.id), group) for server in servers]
        await self._follow_alias(endpoint, traffic, group)
        return min((at for at in (*due, repair_due) if at is not None), default=None)

    async def _take_apart(self, endpoint: str, group: TaskGroup) -> float | None:
        servers = await self._closing.send_servers_away(endpoint)
        workloads = await self._workloads.read()
        due = [await self._care(server, Traffic(), workloads.get(server.id), group) for server in servers]
        if not servers:
            await self._closing.remove(endpoint, group)
        return min((at for at in due if at is not None), default=None)

    async def _adopt(self, endpoint: str, active: Upstream) -> None:
        """Traffic names a server that the store calls stopped or does not know: traffic is right."""
        try:
            known = await self._context.store.get(Server, active.server_id)
        except SwitchyardError as unknown:
            if unknown.status != 404:
                raise
            now = self._context.clock.now()
            server = Server(
                id=active.server_id,
                created_at=now,
                updated_at=now,
                phase=ServerPhase.READY,
                entered={str(ServerPhase.READY): now},
                endpoint=endpoint,
                slot="blue",
                name=active.server_id,
                model_name=active.model_name,
                version=active.model_version,
                serve_image=active.serve_image,
                serve_digest=active.serve_digest,
                address=active.address,
            )
            await self._ledger.apply(Insert(server, self._ledger.opened(server, "found in traffic").event))
        else:
            await self._ledger.apply(self._servers.has_traffic(known))

    async def _care(
        self, server: Server, traffic: Traffic, workload: WorkloadState | None, group: TaskGroup
    ) -> float | None:
        stopping = f"stop {server.id}"
        if self._chores.is_under_way(stopping):
            return None  # its end is an event
        seen = ServerSeen(workload, await self._in_flight(server), await self._is_wanted(server, traffic))
        match decide_server(server, traffic, seen, self._context.clock.now()):
            case Wait(until):
                return until
            case WatchDrain():
                return self._context.clock.now() + DRAIN_LOOK_SECONDS
            case StopServer():
                self._chores.start(group, stopping, partial(self._stop, server))
                return None
            case MoveServer(phase, reason):
                await self._move(server, phase, reason, workload)
        return self._context.clock.now()

    async def _in_flight(self, server: Server) -> int | None:
        if server.phase not in {ServerPhase.RETIRING, ServerPhase.DRAINING} or server.address is None:
            return 0
        try:
            return await self._context.proxy.in_flight(server.address)
        except ProxyUnavailable:
            return None

    async def _is_wanted(self, server: Server, traffic: Traffic) -> bool:
        if server.phase is not ServerPhase.STARTING:
            return False
        if server.rollout_id is not None:
            rollout = await self._context.store.get(Rollout, server.rollout_id)
            return not rollout.phase.terminal
        return traffic.active is not None and traffic.active.server_id == server.replaces

    async def _move(
        self, server: Server, phase: ServerPhase, reason: str, workload: WorkloadState | None
    ) -> None:
        match phase:
            case ServerPhase.READY:
                update = self._servers.has_traffic(server)
            case ServerPhase.RETIRING:
                update = self._servers.lost_traffic(server)
            case ServerPhase.DRAINING:
                update = self._servers.send_away(server, reason)
            case ServerPhase.STOPPED:
                await self._bury(server, workload)
                return
            case _:
                update = self._ledger.moved(server, reason, phase=phase)
        await self._ledger.apply(update)

    async def _bury(self, server: Server, workload: WorkloadState | None) -> None:
        """A server that ended by itself: keep its last words, then its remains can go."""
        how = f"exit={workload.exit_code}" if workload else "it is gone"
        await self._ledger.move(
            server,
            f"server {server.name} has ended ({how})",
            phase=ServerPhase.STOPPED,
            exit_code=workload.exit_code if workload else None,
            out_of_memory=workload.out_of_memory if workload else None,
            logs_tail=await self._context.runtime.logs(server.id, self._context.policy.log_tail_bytes)
            or None,
        )
        await self._context.runtime.remove(server.id)

    async def _stop(self, server: Server) -> None:
        """Only a draining server comes here, and nothing ever gives one traffic again."""
        await self._context.runtime.stop(server.id, self._context.policy.stop_grace)
        await self._context.runtime.remove(server.id)
        await self._ledger.move(server, f"server {server.name} is stopped", phase=ServerPhase.STOPPED)

    async def _follow_alias(self, endpoint: str, traffic: Traffic, group: TaskGroup) -> None:
        known = await self._ledger.latest(Endpoint, endpoint)
        if traffic.active is not None and not alias_follows(known, traffic.active):
            follow = partial(sync_alias, self._context, endpoint)
            self._chores.start(group, f"move the alias of {endpoint}", follow)
