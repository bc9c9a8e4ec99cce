"""At most one router works on a store: the lease of the one that leads.

The kernel, or the database, drops a lease with its holder, however that ends, so nothing has to expire.
"""

import fcntl
import os
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

# Any number that other programs in the same database are unlikely to lock: "swyl" in ASCII.
POSTGRES_LEASE_LOCK = 0x7377796C


class Lease(Protocol):
    """Blocking."""

    def take(self) -> bool:
        """Whether it is ours now; one that was lost meanwhile is taken again if nobody else has it."""

    def release(self) -> None: ...


class FileLease:
    """A lock on a file beside the database: closing any descriptor of the database itself would drop SQLite's
    own locks."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.lease")
        self._descriptor: int | None = None

    def take(self) -> bool:
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class PostgresLease:
    """An advisory lock of a session, which ends with its connection."""

    def __init__(self, engine: Engine) -> None:
        """`engine` commits by itself, so that the connection is not idle in a transaction."""
        self._engine = engine
        self._connection: Connection | None = None

    def take(self) -> bool:
        return self._still_holds() or self._try()

    def _still_holds(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            self.release()
            return False
        return True

    def _try(self) -> bool:
        connection = self._engine.connect()
        taken = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({POSTGRES_LEASE_LOCK})").scalar_one()
        if taken:
            self._connection = connection
        else:
            connection.close()
        return bool(taken)

    def release(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()  # not back to the pool: the lock would go with it
            self._connection.close()
            self._connection = None
