"""Writes every transition to the store with its event, and wakes whoever waits for that record.

The only writer of records. Waiters take the wake-up before they read, so that nothing falls between.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import structlog

from router.core.clock import Clock
from router.core.errors import StorageFull
from router.core.models import Endpoint, Event, Record, Rollout, Server, ServerPhase
from router.stores.base import Change, Claim, Insert, Store, Update

R = TypeVar("R", bound=Record)
K = TypeVar("K", Endpoint, Server)
log = structlog.get_logger()


class Wakeups:
    """Topics that can be awaited: a record's id, or an endpoint's name."""

    def __init__(self) -> None:
        # An event that nobody holds any more is one that nobody waits for.
        self._events: WeakValueDictionary[str, anyio.Event] = WeakValueDictionary()

    def take(self, topic: str) -> anyio.Event:
        """The event of the topic's next change. Take it, then look at the state, then await it."""
        event = self._events.get(topic)
        if event is None:
            event = self._events[topic] = anyio.Event()
        return event

    def notify(self, *topics: str) -> None:
        for topic in topics:
            event = self._events.pop(topic, None)
            if event is not None:
                event.set()


class Ledger:
    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.wakeups = Wakeups()
        self._latest: dict[str, Endpoint | Server] = {}
        # What cannot be moved on for want of room, which then cannot be written down either.
        self._held_up: dict[str, StorageFull] = {}

    def opened(self, record: Record, text: str) -> Insert:
        return Insert(record, self._event(record, "opened", text))

    def moved(self, before: R, text: str = "", **changes: Any) -> Update[R]:
        """A change of `before`; with a text, it is told in the history."""
        kind = "phase" if "phase" in changes else "note"
        if kind == "phase":
            changes.setdefault("waiting_on", None)  # whatever it waited for in the phase before
        after = before.evolve(self.clock.now(), **changes)
        return Update(before, after, self._event(after, kind, text) if text else None)

    async def apply(self, *changes: Change) -> None:
        await self.store.apply(*changes)
        for change in changes:
            if isinstance(change, Claim):
                continue
            record = change.record if isinstance(change, Insert) else change.after
            if change.event is not None:
                log.info(change.event.text, subject=record.id, kind=change.event.kind)
            self._remember(record)
            self._held_up.pop(record.id, None)
            self.wakeups.notify(record.id, *_endpoint_topics(record))

    async def move(self, before: R, text: str = "", **changes: Any) -> R:
        update = self.moved(before, text, **changes)
        await self.apply(update)
        return update.after

    async def until(self, record: R, holds: Callable[[R], bool]) -> None:
        """Returns as soon as that holds for the record as it is stored."""
        while True:
            changed = self.wakeups.take(record.id)
            if holds(await self.store.get(type(record), record.id)):
                return
            await changed.wait()

    async def latest(self, kind: type[K], record_id: str) -> K:
        """As the store has it, without asking the store each time: nobody else writes there."""
        known = self._latest.get(record_id)
        if isinstance(known, kind):
            return known
        read = await self.store.get(kind, record_id)
        self._remember(read)
        return read

    def _remember(self, record: Record) -> None:
        if not isinstance(record, Endpoint | Server):
            return
        if isinstance(record, Server) and record.phase.terminal:  # endpoints are few and come back
            self._latest.pop(record.id, None)
        elif record.id not in self._latest or self._latest[record.id].revision < record.revision:
            self._latest[record.id] = record  # what was read may be older than what was written meanwhile

    def hold_up(self, record_id: str, full: StorageFull) -> None:
        news = record_id not in self._held_up
        self._held_up[record_id] = full
        if news:
            self.wakeups.notify(record_id)

    def raise_if_held_up(self, record_id: str) -> None:
        """Raises StorageFull if the record waits for room."""
        full = self._held_up.get(record_id)
        if full is not None:
            message = f"{full.message}; {record_id} goes on by itself when there is room"
            raise StorageFull(message, hint=full.hint)

    def _event(self, record: Record, kind: str, text: str) -> Event:
        phase = str(getattr(record, "phase", ""))
        return Event(at=self.clock.now(), subject=record.id, kind=kind, text=text, data={"phase": phase})


def _endpoint_topics(record: Record) -> tuple[str, ...]:
    """Whoever looks after an endpoint has nothing to do while a rollout or a new server is on its way."""
    if isinstance(record, Rollout):
        return (endpoint_topic(record.endpoint),) if record.phase.terminal else ()
    if isinstance(record, Server):
        return (endpoint_topic(record.endpoint),) if record.phase is not ServerPhase.STARTING else ()
    return (endpoint_topic(record.id),) if isinstance(record, Endpoint) else ()


def endpoint_topic(name: str) -> str:
    """Endpoint names are people's, record ids are ours: keep them apart."""
    return f"endpoint:{name}"


def tell_who(what: str, by: str | None, reason: str | None) -> str:
    """For the history."""
    told = f"{what} by {by}" if by else what
    return f"{told}: {reason}" if reason else told
