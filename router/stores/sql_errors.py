"""What the databases' errors mean to the router: no room, or not reachable. Nothing of SQLAlchemy leaves."""

import errno
import os
import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from router.core.errors import StorageFull, StoreUnavailable, SwitchyardError

NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
PROBE_BYTES = 64 * 1024
POSTGRES_DISK_FULL = "53100"
# What SQLite says when a write, or a file that it needs for one, fails for a reason that it does not tell.
REASON_UNKNOWN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


def translate(error: SQLAlchemyError | OSError, name: str, file: Path | None) -> SwitchyardError:
    """`name` is the store's address without its password; `file` is its file, if it is SQLite."""
    if _is_full(error, file):
        return StorageFull(
            f"the disk of the store {name} is full; nothing was changed",
            hint="free some space there; the router goes on by itself",
        )
    return StoreUnavailable(f"the store {name} cannot be used: {_reason(error)}")


def _is_full(error: SQLAlchemyError | OSError, file: Path | None) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # without SQLite's extension of it
        return code == sqlite3.SQLITE_FULL or (code in REASON_UNKNOWN and _has_no_room(file))
    return getattr(cause, "sqlstate", None) == POSTGRES_DISK_FULL


def _has_no_room(file: Path | None) -> bool:
    """Ask the file system itself: a quota does not show in its figures."""
    if file is None:
        return False
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            probe.write(b"\0" * PROBE_BYTES)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error.errno in NO_SPACE
    return False


def _reason(error: SQLAlchemyError | OSError) -> str:
    """The first line of the driver's own words. PostgreSQL's next lines would quote a whole row."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    primary = getattr(getattr(cause, "diag", None), "message_primary", None)
    lines = str(primary or cause or error).strip().splitlines()
    return lines[0] if lines else type(cause or error).__name__
