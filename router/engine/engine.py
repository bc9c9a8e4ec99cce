"""The engine as the API sees it: it leads or stands by, takes commands, answers, and can be awaited."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream

from router.core.errors import NotFound, StandingBy, SwitchyardError
from router.core.models import Record, Rollout, Server
from router.engine.alias_requests import AliasRequests
from router.engine.commands import Commands
from router.engine.context import Context
from router.engine.endpoints import Endpoints
from router.engine.first_model import serve_first_model
from router.engine.ledger import endpoint_topic
from router.engine.racing import wait_any
from router.engine.reconciler import Reconciler
from router.engine.servers import Servers
from router.engine.status import Health
from router.engine.steering import Steering
from router.engine.supervisor import Supervisor
from router.engine.sweeper import Sweeper
from router.stores.base import Store

LOCK_LOOK_SECONDS = 0.5
START_RETRY_SECONDS = 2.0
LEASE_LOOK_SECONDS = 2.0

R = TypeVar("R", bound=Record)
log = structlog.get_logger()


class LeaderLock(Protocol):
    """Held by one router at a time; lost with the process that holds it."""

    def try_acquire(self) -> bool: ...

    def release(self) -> None: ...


class LeadLost(Exception):
    """Ends the router. Whoever keeps it running starts another one, which stands by."""


class Engine:
    def __init__(self, context: Context, lock: LeaderLock) -> None:
        self.context = context
        self.health = Health(context)
        self._lock = lock
        self._commands: Commands | None = None
        self._endpoints: Endpoints | None = None
        self.standing_by_because = "it has just started"

    @property
    def commands(self) -> Commands:
        """Raises StandingBy while this router does not lead."""
        return self.require_lead()

    def require_lead(self) -> Commands:
        if self._commands is None:
            raise StandingBy(
                f"this router does not lead: {self.standing_by_because}",
                hint="try again, or ask the router that leads",
            )
        return self._commands

    @property
    def leads(self) -> bool:
        return self._commands is not None

    @property
    def steering(self) -> Steering:
        """Raises StandingBy while this router does not lead."""
        self.require_lead()
        return Steering(self.context)

    @property
    def endpoints(self) -> Endpoints:
        """Raises StandingBy while this router does not lead."""
        self.require_lead()
        assert self._endpoints is not None, "whoever leads has them"
        return self._endpoints

    @property
    def store(self) -> Store:
        """For reading. Raises StandingBy while this router does not lead: the store may not be open."""
        self.require_lead()
        return self.context.store

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lead as soon as the lock is free, until the context ends. Trainers and servers go on after it."""
        # A runtime hears of an end outside of any task, where nothing can be awaited and no task begun.
        ends, heard = anyio.create_memory_object_stream[str](math.inf)
        self.context.runtime.on_end(ends.send_nowait)
        async with ends, heard, anyio.create_task_group() as group:
            group.start_soon(self._tell_ends, heard)
            group.start_soon(self._lead, group)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self._close()

    async def _lead(self, group: TaskGroup) -> None:
        context = self.context
        while True:
            try:
                while not self._lock.try_acquire():
                    self.standing_by_because = "another router has the lock on the slot directory"
                    await context.clock.sleep(LOCK_LOOK_SECONDS)
                await self._start(group)
                return
            except SwitchyardError as error:
                self.standing_by_because = error.message
                log.warning("cannot start yet", error=error.message, hint=error.hint)
                await context.clock.sleep(START_RETRY_SECONDS)

    async def _start(self, group: TaskGroup) -> None:
        context = self.context
        await context.store.start()
        if not await context.store.lead():
            raise StandingBy("another router leads with this store")
        await context.registry.start()
        await context.runtime.start()
        await context.proxy.start()
        servers = Servers(context)
        endpoints = Endpoints(context, Supervisor(context, servers), self.health, group)
        names = await endpoints.restore()
        reconciler = Reconciler(context, servers, group)
        await reconciler.take_up_all()
        for name in names:
            endpoints.watch(name)
        group.start_soon(Sweeper(context).run)
        group.start_soon(self._keep_lead)
        self._endpoints = endpoints
        self._commands = Commands(context, servers, reconciler)
        group.start_soon(serve_first_model, context, self._commands)
        group.start_soon(AliasRequests(context, self._commands).run)
        log.info("leading", endpoints=names)

    async def _keep_lead(self) -> None:
        """Never returns. Without the lease another router may be at work: this one must not go on."""
        while True:
            await self.context.clock.sleep(LEASE_LOOK_SECONDS)
            try:
                leads = await self.context.store.lead()
            except SwitchyardError as error:
                log.warning("cannot tell whether this router still leads", error=error.message)
            else:
                if not leads:
                    raise LeadLost("another router has taken the lead: this one ends")

    async def _tell_ends(self, heard: MemoryObjectReceiveStream[str]) -> None:
        """Never returns."""
        async for owner in heard:
            await self._tell_end(owner)

    async def _tell_end(self, owner: str) -> None:
        """A trainer or server has ended: wake whoever looks after it."""
        topics = [owner]
        try:
            server = await self.context.store.get(Server, owner)
            topics += [endpoint_topic(server.endpoint), *([server.rollout_id] if server.rollout_id else [])]
        except NotFound:
            pass  # a trainer
        except SwitchyardError as error:
            log.warning("an end is found by the next pass", owner=owner, error=error.message)
        self.context.ledger.wakeups.notify(*topics)

    async def _close(self) -> None:
        self._commands = None
        context = self.context
        for part in (context.prober, context.proxy, context.runtime, context.registry, context.store):
            await part.close()
        self._lock.release()

    async def wait_for_share(self, rollout_id: str, weight: float, seconds: float) -> None:
        """Until its candidate really has this share (percent), it is settled, or so many seconds are over."""
        clock = self.context.clock
        deadline = clock.now() + seconds
        while (remaining := deadline - clock.now()) > 0:
            changed = self.context.ledger.wakeups.take(rollout_id)
            rollout = await self.context.store.get(Rollout, rollout_id)
            traffic = await self.context.proxy.read_traffic(rollout.endpoint)
            if rollout.phase.settled or (traffic.candidate is not None and traffic.weight == weight):
                return
            await wait_any(clock, remaining, changed)

    async def wait_until(
        self, kind: type[R], record_id: str, done: Callable[[R], bool], seconds: float | None
    ) -> R:
        """The record when it is done, or as it is after so many seconds (None: however long it takes).

        Raises StorageFull if it waits for room on a disk.
        """
        clock = self.context.clock
        deadline = None if seconds is None else clock.now() + seconds
        while True:
            changed = self.context.ledger.wakeups.take(record_id)
            record = await self.context.store.get(kind, record_id)
            remaining = None if deadline is None else deadline - clock.now()
            if done(record) or (remaining is not None and remaining <= 0):
                return record
            self.context.ledger.raise_if_held_up(record_id)
            await wait_any(clock, remaining, changed)
