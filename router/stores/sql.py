"""Durable state in SQLite (a file, by default) or PostgreSQL, through SQLAlchemy in threads.

A change is acknowledged after the commit that fsyncs it. Every update is guarded by the phase and revision
that it was made from; whatever fails takes its whole transaction back.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from router.core.errors import StorageFull, StoreUnavailable
from router.core.models import Endpoint, EndpointPhase, Event, Record, Rollout
from router.stores.base import Change, Claim, Insert, Update
from router.stores.connections import READERS, Database
from router.stores.encoding import Stored, as_stored, as_stored_pair, decode, encode, refuse_endpoint_filter
from router.stores.migrations import bring_up_to_date
from router.stores.refusals import exists_already, in_progress, key_taken, moved_by_another, removed, unknown
from router.stores.sql_errors import translate
from router.stores.tables import (
    COUNT_CHECK,
    GUARDED_UPDATE,
    SELECT_BODY,
    SELECT_CLAIM,
    SELECT_ENDPOINT_PHASE,
    SELECT_HOLDER,
    TABLES,
    claims,
    events,
    select_bodies,
    select_newest_events,
)

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class SqlStore:
    """`url`: sqlite:///PATH or postgresql://..., `patience`: seconds to wait for somebody else's lock.

    Raises UnsupportedSetting for any other address.
    """

    def __init__(self, url: str, *, patience: float = 5.0) -> None:
        self._database = Database(url, patience)
        # Threads of our own: a slow call to Docker or MLflow must not keep a record from being written.
        self._write_turn = CapacityLimiter(1)
        self._read_turns = CapacityLimiter(READERS)

    async def start(self) -> None:
        def open_database() -> None:
            self._database.prepare()
            bring_up_to_date(self._database)

        await self._in_thread(self._write_turn, open_database)

    async def close(self) -> None:
        await self._in_thread(self._write_turn, self._database.dispose)

    async def lead(self) -> bool:
        return await self._in_thread(self._write_turn, self._database.lease.take)

    async def check(self) -> None:
        def write() -> None:
            self._database.check()
            with self._database.writes.begin() as connection:
                connection.execute(COUNT_CHECK)

        try:
            await self._in_thread(self._write_turn, write)
        except StorageFull as error:
            raise StoreUnavailable(error.message, hint=error.hint) from error

    async def apply(self, *changes: Change) -> None:
        def write() -> None:
            with self._database.writes.begin() as connection:
                for change in changes:
                    _write_change(connection, change)

        if changes:
            await self._in_thread(self._write_turn, write)

    async def get(self, kind: type[R], record_id: str) -> R:
        def read() -> R:
            with self._database.reads.connect() as connection:
                body = connection.execute(SELECT_BODY[kind], {"id": record_id}).scalar()
            if body is None:
                raise unknown(kind, record_id)
            return decode(kind, body)

        if not (record_id.isascii() and record_id.isprintable()):  # no id of ours; PostgreSQL refuses a NUL
            raise unknown(kind, record_id)
        return await self._in_thread(self._read_turns, read)

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
        wanted = None if phases is None else [str(phase) for phase in phases]
        query = select_bodies(kind, wanted, endpoint, newest_first, older_than, limit)

        def read() -> list[R]:
            with self._database.reads.connect() as connection:
                return [decode(kind, body) for body in connection.execute(query).scalars()]

        return await self._in_thread(self._read_turns, read)

    async def claimed(self, key: str) -> Claim | None:
        def read() -> Claim | None:
            with self._database.reads.connect() as connection:
                row = connection.execute(SELECT_CLAIM, {"key": key}).one_or_none()
            return None if row is None else Claim(row.key, row.fingerprint, row.record_id, row.at)

        return await self._in_thread(self._read_turns, read)

    async def events(self, subject: str | None = None, *, limit: int = 200) -> Sequence[Event]:
        def read() -> list[Event]:
            with self._database.reads.connect() as connection:
                bodies = connection.execute(select_newest_events(subject, limit)).scalars().all()
            return [decode(Event, body) for body in reversed(bodies)]

        return await self._in_thread(self._read_turns, read)

    async def _in_thread(self, turn: CapacityLimiter, work: Callable[[], T]) -> T:
        """A caller that is cancelled still waits for the thread: its change is either made or not begun."""

        def run() -> T:
            with self._translated_errors():
                return work()

        return await to_thread.run_sync(run, limiter=turn)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OSError) as error:
            raise translate(error, self._database.name, self._database.file) from error


def _write_change(connection: Connection, change: Change) -> None:
    match change:
        case Claim():
            _insert_claim(connection, change)
        case Insert():
            _insert_record(connection, as_stored(change.record))
            _insert_event(connection, change.event)
        case Update():
            _update_record(connection, *as_stored_pair(change.before, change.after))
            if change.event is not None:
                _insert_event(connection, change.event)


def _insert_record(connection: Connection, record: Stored) -> None:
    _refuse_second_holder(connection, record)
    _refuse_removed_endpoint(connection, record)
    values = {**_changing_values(record), "id": record.id, "created_at": record.created_at}
    endpoint = getattr(record, "endpoint", None)
    if endpoint is not None:
        values["endpoint"] = endpoint
    try:
        connection.execute(insert(TABLES[type(record)]), values)
    except IntegrityError as error:
        raise exists_already(record) from error


def _update_record(connection: Connection, before: Stored, after: Stored) -> None:
    guard = {"guard_id": before.id, "guard_phase": str(before.phase), "guard_revision": before.revision}
    if not (isinstance(before, Rollout) and before.holds_endpoint):  # one that holds it already, may go on
        _refuse_second_holder(connection, after)
    _refuse_closing_if_held(connection, after)
    written = connection.execute(GUARDED_UPDATE[type(before)], {**guard, **_changing_values(after)})
    if written.rowcount != 1:
        raise moved_by_another(before)


def _changing_values(record: Stored) -> dict[str, object]:
    values: dict[str, object] = {
        "phase": str(record.phase),
        "revision": record.revision,
        "body": encode(record),
    }
    if isinstance(record, Rollout):
        values["holds_endpoint"] = record.holds_endpoint
    return values


def _refuse_second_holder(connection: Connection, record: Stored) -> None:
    """Writers are alone, so what is read here holds until the commit; a unique index stands behind it."""
    if not isinstance(record, Rollout) or not record.holds_endpoint:
        return
    holder = connection.execute(SELECT_HOLDER, {"endpoint": record.endpoint}).scalar()
    if holder is not None and holder != record.id:
        raise in_progress(record.endpoint, holder)


def _refuse_removed_endpoint(connection: Connection, record: Stored) -> None:
    if isinstance(record, Rollout) and record.holds_endpoint:
        phase = connection.execute(SELECT_ENDPOINT_PHASE, {"id": record.endpoint}).scalar()
        if phase not in {None, str(EndpointPhase.OPEN)}:
            raise removed(record.endpoint)


def _refuse_closing_if_held(connection: Connection, after: Stored) -> None:
    if isinstance(after, Endpoint) and after.phase is EndpointPhase.CLOSING:
        holder = connection.execute(SELECT_HOLDER, {"endpoint": after.id}).scalar()
        if holder is not None:
            raise in_progress(after.id, holder)


def _insert_event(connection: Connection, event: Event) -> None:
    connection.execute(insert(events), {"subject": event.subject, "body": encode(event)})


def _insert_claim(connection: Connection, claim: Claim) -> None:
    values = {
        "key": claim.key,
        "fingerprint": claim.fingerprint,
        "record_id": claim.record_id,
        "at": claim.at,
    }
    try:
        connection.execute(insert(claims), values)
    except IntegrityError as error:
        raise key_taken(claim.key) from error
