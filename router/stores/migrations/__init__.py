"""The schema's history, and the way up it on start.

Alembic is imported only when there is a step to take: a store that is up to date costs one query, and the
router stays smaller. A new field of a record with a default needs no step; a column, a table, or a field that
goes or changes its meaning does.
"""

from sqlalchemy import Connection, inspect, text

from router.core.errors import StoreUnavailable
from router.stores.connections import Database

VERSION_TABLE = "switchyard_schema"
REVISIONS = ("0001",)  # in their order; the last one is the schema of `tables.py`
CURRENT = REVISIONS[-1]


def bring_up_to_date(database: Database) -> None:
    """In one transaction: a router that dies in it leaves the old schema, a second one waits for it.

    Raises StoreUnavailable for a schema that this version does not know.
    """
    with database.reads.connect() as connection:
        if read_schema(connection) == CURRENT:
            return
    with database.writes.begin() as connection:
        found = read_schema(connection)
        if found is not None and found not in REVISIONS:
            raise StoreUnavailable(
                f"the store {database.name} has the schema {found!r}, made by a newer router; this one knows"
                f" schemas up to {CURRENT!r}. Nothing was changed",
                hint="run the newer version of the router, or restore a backup from before it",
            )
        if found != CURRENT:
            _upgrade(connection)


def read_schema(connection: Connection) -> str | None:
    """None: an empty database."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608


def _upgrade(connection: Connection) -> None:
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "router.stores:migrations")
    config.set_main_option("path_separator", "os")
    upgrade(config, CURRENT)
