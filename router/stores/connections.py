"""How the two databases are opened: durable on commit, and with one writer at a time.

With one writer, whoever has begun to write sees everything that was written before, so a check and the write
that rests on it cannot be separated, no transactions deadlock, and history is in the order of the commits.
"""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from router.core.errors import StoreUnavailable, UnsupportedSetting
from router.stores.lease import FileLease, Lease, PostgresLease

READERS = 2
CONNECTIONS = READERS + 2  # one that writes, and one that holds the lease
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}
WRITING = "switchyard_writing"  # execution option: this connection's transactions are writes
# Any number that other programs in the same database are unlikely to lock: "swyd" in ASCII.
POSTGRES_WRITER_LOCK = 0x73777964


class Database:
    """One database, with `reads` that take no lock and `writes` that are alone from their beginning."""

    def __init__(self, url: str, patience: float) -> None:
        """`patience`: seconds to wait for somebody else's lock."""
        parsed = _parse(url)
        backend = parsed.get_backend_name()
        self.name = parsed.set(drivername=backend, query={}).render_as_string(hide_password=True)
        self.file = Path(str(parsed.database)).absolute() if backend == "sqlite" else None
        self._opened: tuple[int, int] | None = None
        self._engine = _sqlite(parsed, patience) if self.file else _postgresql(parsed, patience)
        self.reads = self._engine if self.file else self._engine.execution_options(**AUTOCOMMIT)
        self.writes = self._engine.execution_options(**{WRITING: True})
        self.lease: Lease = FileLease(self.file) if self.file else PostgresLease(self.reads)

    def prepare(self) -> None:
        """Make what has to be there once, before the schema. Raises OSError, StoreUnavailable."""
        if self.file is None:
            return
        _create_private_file(self.file)
        self._opened = _identity(self.file)
        with self.reads.connect() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar_one()
        if mode != "wal":
            raise StoreUnavailable(
                f"{self.file} is on a file system where SQLite has no write-ahead log",
                hint="put the store on a local disk, or use PostgreSQL",
            )

    def check(self) -> None:
        """SQLite goes on in a file that has been moved or deleted, and all of it lost at the next start."""
        if self.file is not None and self._opened != _identity(self.file):
            raise StoreUnavailable(
                f"{self.file} is no longer the file that was opened",
                hint="put it back, or restart the router to go on with what is there now",
            )

    def dispose(self) -> None:
        self.lease.release()
        self._engine.dispose()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _parse(url: str) -> URL:
    """Without the address in an error: it may hold a password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise UnsupportedSetting("the store's address is not a database URL") from None
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise UnsupportedSetting(
            f"the store cannot be on {backend}", hint="use sqlite:///PATH or postgresql://USER@HOST/NAME"
        )
    if parsed.database in {None, "", ":memory:"} or parsed.query:
        raise UnsupportedSetting("the store needs a file: sqlite:///PATH, without options")
    return parsed.set(drivername="sqlite")


def _sqlite(url: URL, patience: float) -> Engine:
    engine = _create_engine(url, connect_args={"timeout": patience})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver would begin by its own rules, and late
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync stops at the drive's cache

    _begin_writes_with(engine, lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _postgresql(url: URL, patience: float) -> Engine:
    # Without a limit, a connection to a machine that is gone would wait for many minutes.
    limits = {"connect_timeout": "5", "tcp_user_timeout": "10000"}
    unset = {name: value for name, value in limits.items() if name not in url.query}
    # A stricter level would show a writer what there was before it waited for its turn. The ping replaces
    # connections that a restart of the server has cut.
    engine = _create_engine(url, connect_args=unset, isolation_level="READ COMMITTED", pool_pre_ping=True)
    milliseconds = max(1, int(patience * 1000))  # 0 would mean for ever

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = on")
            cursor.execute(f"SET lock_timeout = {milliseconds}")
            # A router that hangs in the middle of a write must not keep the next one from working.
            cursor.execute("SET idle_in_transaction_session_timeout = '30s'")
        connection.commit()

    take_turn = f"SELECT pg_advisory_xact_lock({POSTGRES_WRITER_LOCK})"
    _begin_writes_with(engine, lambda connection: connection.exec_driver_sql(take_turn))
    return engine


def _create_engine(url: URL, **options: Any) -> Engine:
    """With parameters hidden: they would carry a record's env into error messages."""
    return create_engine(url, pool_size=CONNECTIONS, max_overflow=0, hide_parameters=True, **options)


def _begin_writes_with(engine: Engine, begin: Callable[[Connection], object]) -> None:
    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        if connection.get_execution_options().get(WRITING):
            begin(connection)


def _create_private_file(file: Path) -> None:
    """Readable by us alone: records hold the env of trainers. SQLite gives its other files the same mode."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
