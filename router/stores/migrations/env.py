"""Alembic runs this file for every command, inside the connection and transaction that it is given."""

from alembic import context

from router.stores.migrations import VERSION_TABLE
from router.stores.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
context.run_migrations()
