"""A store without a disk, for tests of everything above it: the same guards, order and atomicity.

What it keeps is the text that the SQL store writes, so a record comes back exactly as it would from there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from anyio.lowlevel import checkpoint

from router.core.errors import SwitchyardError
from router.core.models import Endpoint, EndpointPhase, Event, Record, Rollout
from router.stores.base import Change, Claim, Insert, Update
from router.stores.encoding import (
    KINDS,
    Stored,
    as_stored,
    as_stored_pair,
    decode,
    encode,
    refuse_endpoint_filter,
)
from router.stores.refusals import exists_already, in_progress, key_taken, moved_by_another, removed, unknown

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Row:
    seq: int
    record: Stored
    body: str

    @property
    def order(self) -> tuple[float, int]:
        return self.record.created_at, self.seq


@dataclass
class State:
    rows: dict[type[Record], dict[str, Row]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    events: tuple[Event, ...] = ()
    claims: dict[str, Claim] = field(default_factory=dict)

    def copy(self) -> "State":
        return State({kind: dict(rows) for kind, rows in self.rows.items()}, self.events, dict(self.claims))


class MemoryStore:
    """For tests: while `fail_with` is set, every call raises it and changes nothing; while `fail_writes_with`
    is set, `start`, `check` and `apply` do."""

    def __init__(self) -> None:
        self.fail_with: SwitchyardError | None = None
        self.fail_writes_with: SwitchyardError | None = None
        self.leads = True
        self._state = State()

    async def start(self) -> None:
        await self._answer(writes=True)

    async def close(self) -> None: ...

    async def lead(self) -> bool:
        await self._answer(writes=True)
        return self.leads

    async def check(self) -> None:
        await self._answer(writes=True)

    async def apply(self, *changes: Change) -> None:
        await self._answer(writes=True)
        # No await from here on, so nobody sees or makes a change in between.
        state = self._state.copy()
        for change in changes:
            _apply_change(state, change)
        self._state = state

    async def get(self, kind: type[R], record_id: str) -> R:
        await self._answer()
        row = self._state.rows[kind].get(record_id)
        if row is None:
            raise unknown(kind, record_id)
        return decode(kind, row.body)

    async def find(
        self,
        kind: type[R],
        *,
        phases: Collection[str] | None = None,
        endpoint: str | None = None,
        newest_first: bool = False,
        older_than: str | None = None,
        limit: int | None = None,
    ) -> list[R]:
        refuse_endpoint_filter(kind, endpoint)
        await self._answer()
        rows = [
            row
            for row in self._state.rows[kind].values()
            if (phases is None or row.record.phase in phases)
            and (endpoint is None or getattr(row.record, "endpoint", None) == endpoint)
        ]
        if older_than is not None:
            last = self._state.rows[kind].get(older_than)
            rows = [row for row in rows if last is not None and row.order < last.order]
        rows.sort(key=lambda row: row.order, reverse=newest_first)
        return [decode(kind, row.body) for row in rows[:limit]]

    async def claimed(self, key: str) -> Claim | None:
        await self._answer()
        return self._state.claims.get(key)

    async def events(self, subject: str | None = None, *, limit: int = 200) -> Sequence[Event]:
        await self._answer()
        events = [event for event in self._state.events if subject is None or event.subject == subject]
        return events[max(0, len(events) - limit) :]

    async def _answer(self, *, writes: bool = False) -> None:
        """Let others run, as a real store would, and fail if a test says so."""
        await checkpoint()
        error = self.fail_with or (self.fail_writes_with if writes else None)
        if error is not None:
            raise error


def _apply_change(state: State, change: Change) -> None:
    if isinstance(change, Claim):
        if change.key in state.claims:
            raise key_taken(change.key)
        state.claims[change.key] = change
        return
    if isinstance(change, Insert):
        _insert(state, as_stored(change.record))
    else:
        _update(state, change)
    if change.event is not None:
        state.events = (*state.events, decode(Event, encode(change.event)))


def _insert(state: State, record: Stored) -> None:
    rows = state.rows[type(record)]
    _refuse_second_holder(state, record)
    _refuse_removed_endpoint(state, record)
    if record.id in rows:
        raise exists_already(record)
    rows[record.id] = Row(len(rows), record, encode(record))


def _update(state: State, change: Update[Record]) -> None:
    before, after = as_stored_pair(change.before, change.after)
    rows = state.rows[type(before)]
    row = rows.get(before.id)
    if row is None or (row.record.phase, row.record.revision) != (before.phase, before.revision):
        raise moved_by_another(before)
    _refuse_second_holder(state, after)
    _refuse_closing_if_held(state, after)
    rows[before.id] = replace(row, record=after, body=encode(after))


def _refuse_second_holder(state: State, record: Stored) -> None:
    if not isinstance(record, Rollout) or not record.holds_endpoint:
        return
    holder = _find_holder(state, record.endpoint)
    if holder is not None and holder != record.id:
        raise in_progress(record.endpoint, holder)


def _refuse_removed_endpoint(state: State, record: Stored) -> None:
    if isinstance(record, Rollout) and record.holds_endpoint:
        row = state.rows[Endpoint].get(record.endpoint)
        if row is not None and row.record.phase is not EndpointPhase.OPEN:
            raise removed(record.endpoint)


def _refuse_closing_if_held(state: State, after: Stored) -> None:
    if isinstance(after, Endpoint) and after.phase is EndpointPhase.CLOSING:
        holder = _find_holder(state, after.id)
        if holder is not None:
            raise in_progress(after.id, holder)


def _find_holder(state: State, endpoint: str) -> str | None:
    for row in state.rows[Rollout].values():
        rollout = row.record
        if isinstance(rollout, Rollout) and rollout.holds_endpoint and rollout.endpoint == endpoint:
            return rollout.id
    return None
