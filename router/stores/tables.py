"""The tables and every statement that the SQL store sends, built once.

A record is its JSON; beside it stand only the columns that a guard or a query needs. The names have a prefix
because people put several programs into one PostgreSQL database (MLflow has tables of its own in it).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Select,
    Table,
    Text,
    Update,
    bindparam,
    select,
    tuple_,
    update,
)

from router.core.models import Endpoint, Record, Rollout, Server, Training

metadata = MetaData()
# Order of insertion. On SQLite it is the rowid.
sequence_type = BigInteger().with_variant(Integer, "sqlite")


def _record_table(plural: str, *columns: Column[object], endpoint: bool = False) -> Table:
    """Each index ends in the order that `find` gives, so that a limit ends the search."""
    name = f"switchyard_{plural}"
    order = ("created_at", "seq")
    indexes = [Index(f"{name}_by_time", *order), Index(f"{name}_by_phase", "phase", *order)]
    if endpoint:
        columns = (Column("endpoint", Text, nullable=False), *columns)
        indexes.append(Index(f"{name}_by_endpoint", "endpoint", *order))
    return Table(
        name,
        metadata,
        Column("seq", sequence_type, primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("phase", Text, nullable=False),
        Column("revision", Integer, nullable=False),
        Column("created_at", Double, nullable=False),
        *columns,
        Column("body", Text, nullable=False),
        *indexes,
    )


trainings = _record_table("trainings")
rollouts = _record_table("rollouts", Column("holds_endpoint", Boolean, nullable=False), endpoint=True)
servers = _record_table("servers", endpoint=True)
endpoints = _record_table("endpoints")
Index(
    "switchyard_rollouts_one_holder",
    rollouts.c.endpoint,
    unique=True,
    sqlite_where=rollouts.c.holds_endpoint,
    postgresql_where=rollouts.c.holds_endpoint,
)

events = Table(
    "switchyard_events",
    metadata,
    Column("seq", sequence_type, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("switchyard_events_by_subject", "subject", "seq"),
)

claims = Table(
    "switchyard_claims",
    metadata,
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("record_id", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# One row, counted up by each check, since only a write that is committed proves that the next one can be.
write_checks = Table("switchyard_write_checks", metadata, Column("count", BigInteger, nullable=False))

TABLES: dict[type[Record], Table] = {
    Training: trainings,
    Rollout: rollouts,
    Server: servers,
    Endpoint: endpoints,
}


def _guarded_update(table: Table) -> Update:
    return update(table).where(
        table.c.id == bindparam("guard_id"),
        table.c.phase == bindparam("guard_phase"),
        table.c.revision == bindparam("guard_revision"),
    )


SELECT_BODY: dict[type[Record], Select[str]] = {
    kind: select(table.c.body).where(table.c.id == bindparam("id")) for kind, table in TABLES.items()
}
GUARDED_UPDATE = {kind: _guarded_update(table) for kind, table in TABLES.items()}
SELECT_HOLDER = select(rollouts.c.id).where(
    rollouts.c.endpoint == bindparam("endpoint"), rollouts.c.holds_endpoint
)
SELECT_ENDPOINT_PHASE = select(endpoints.c.phase).where(endpoints.c.id == bindparam("id"))
SELECT_CLAIM = select(claims).where(claims.c.key == bindparam("key"))
COUNT_CHECK = update(write_checks).values(count=write_checks.c.count + 1)


def select_bodies(
    kind: type[Record],
    phases: list[str] | None,
    endpoint: str | None,
    newest_first: bool,
    older_than: str | None,
    limit: int | None,
) -> Select[str]:
    columns = TABLES[kind].c
    query = select(columns.body)
    if phases is not None:
        query = query.where(columns.phase.in_(phases))
    if endpoint is not None:
        query = query.where(columns.endpoint == endpoint)
    order = (columns.created_at, columns.seq)
    if older_than is not None:
        last = TABLES[kind].alias()
        place = select(last.c.created_at, last.c.seq).where(last.c.id == older_than)
        query = query.where(tuple_(*order) < place.scalar_subquery())
    query = query.order_by(*(column.desc() for column in order) if newest_first else order)
    return query if limit is None else query.limit(limit)


def select_newest_events(subject: str | None, limit: int) -> Select[str]:
    query = select(events.c.body).order_by(events.c.seq.desc()).limit(limit)
    return query if subject is None else query.where(events.c.subject == subject)
