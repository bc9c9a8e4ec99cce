"""What only a database has: a schema that grows, locks, disks that fill, servers that restart."""

import json
import sqlite3
import stat
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from router.core.errors import StoreUnavailable, UnsupportedSetting
from router.core.models import Rollout, Training
from router.stores import tables
from router.stores.base import Update
from router.stores.connections import POSTGRES_WRITER_LOCK, Database
from router.stores.migrations import CURRENT, REVISIONS, VERSION_TABLE, bring_up_to_date, read_schema
from router.stores.sql import SqlStore
from tests.records import make_rollout, make_training, opened
from tests.services.postgres import run_postgres

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    created: str = request.getfixturevalue("postgres").create_database()
    return created


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    """To a database that is up to date."""
    with open_database(url) as database:
        database.prepare()
        bring_up_to_date(database)
        with database.reads.connect() as reading:
            yield reading


@contextmanager
def open_database(url: str) -> Iterator[Database]:
    """Beside the store, as somebody else would."""
    database = Database(url, patience=5)
    try:
        yield database
    finally:
        database.dispose()


def execute(url: str, statement: str, **parameters: object) -> None:
    with open_database(url) as database, database.writes.begin() as writing:
        writing.execute(text(statement), parameters)


@asynccontextmanager
async def started(url: str, patience: float = 5.0) -> AsyncIterator[SqlStore]:
    store = SqlStore(url, patience=patience)
    try:
        await store.start()
        yield store
    finally:
        await store.close()


async def test_what_was_written_is_there_after_a_new_start(url: str) -> None:
    training = make_training("trn_1")
    async with started(url) as store:
        await store.apply(opened(training))
    async with started(url) as store:
        await store.start()
        assert await store.get(Training, "trn_1") == training


def test_the_migrations_end_in_the_schema_that_the_store_uses(connection: Connection) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
    )
    assert compare_metadata(context, tables.metadata) == []
    assert read_schema(connection) == CURRENT


def test_the_list_of_revisions_is_the_list_of_migrations() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "router.stores:migrations")
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(script.revision for script in scripts) == REVISIONS[::-1]


async def test_a_schema_of_a_newer_router_is_refused_by_name_and_left_alone(url: str) -> None:
    async with started(url):
        pass
    execute(url, "UPDATE switchyard_schema SET version_num = '0999'")
    store = SqlStore(url)
    with pytest.raises(StoreUnavailable, match=f"'0999'.*'{CURRENT}'") as refusal:
        await store.start()
    await store.close()
    assert refusal.value.hint is not None
    with open_database(url) as database, database.reads.connect() as reading:
        assert read_schema(reading) == "0999"


async def test_a_migration_that_fails_leaves_nothing_behind(url: str) -> None:
    with open_database(url) as database:
        database.prepare()
        with database.writes.begin() as writing:
            writing.execute(text("CREATE TABLE switchyard_claims (something INTEGER)"))
        store = SqlStore(url)
        with pytest.raises(StoreUnavailable, match="switchyard_claims"):
            await store.start()
        await store.close()
        with database.reads.connect() as reading:
            assert read_schema(reading) is None
            found = [name for name in tables.metadata.tables if reading.dialect.has_table(reading, name)]
    assert found == ["switchyard_claims"]


async def test_the_tables_of_other_programs_in_the_database_are_left_alone(url: str) -> None:
    with open_database(url) as database:
        database.prepare()
        with database.writes.begin() as writing:
            for name in ("alembic_version", "endpoints", "events"):
                writing.execute(text(f"CREATE TABLE {name} (version_num VARCHAR(32))"))
            writing.execute(text("INSERT INTO alembic_version VALUES ('of another')"))
    async with started(url) as store:
        await store.check()
    with open_database(url) as database, database.reads.connect() as reading:
        assert reading.execute(text("SELECT version_num FROM alembic_version")).scalar() == "of another"


def test_routers_that_start_at_once_on_an_empty_database_all_come_up(url: str) -> None:
    program = (
        "import anyio, sys\n"
        "from router.stores.sql import SqlStore\n"
        "async def main():\n"
        "    store = SqlStore(sys.argv[1])\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    await store.start()\n"
        "    await store.check()\n"
        "    await store.close()\n"
        "anyio.run(main)\n"
    )
    command = [sys.executable, "-c", program, url]
    routers = [
        subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for router in routers:
        assert router.stdout is not None
        assert router.stdout.readline() == b"ready\n"
    for router in routers:
        assert router.stdin is not None
        router.stdin.write(b"\n")
        router.stdin.flush()
    ends = [(router.communicate(timeout=60)[1].decode(), router.returncode) for router in routers]
    assert ends == [("", 0)] * 4


def test_alembic_is_loaded_only_when_the_schema_has_a_step_to_take(url: str, connection: Connection) -> None:
    program = (
        "import anyio, sys\n"
        "from router.stores.sql import SqlStore\n"
        "async def main():\n"
        "    store = SqlStore(sys.argv[1])\n"
        "    await store.start()\n"
        "    await store.close()\n"
        "anyio.run(main)\n"
        "sys.exit('alembic' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, url], cwd=REPOSITORY, check=True)


async def test_a_record_of_an_older_router_gets_the_defaults_of_the_newer_one(url: str) -> None:
    training = make_training("trn_1", image="old", warnings=("kept",))
    async with started(url) as store:
        await store.apply(opened(training))
        rewrite_body(url, "trn_1", remove=("gpus", "roll", "resources", "entered"))
        assert await store.get(Training, "trn_1") == training


async def test_a_record_that_cannot_be_read_is_named_by_its_field_and_keeps_its_secrets(url: str) -> None:
    async with started(url) as store:
        await store.apply(opened(make_training("trn_1")))
        rewrite_body(url, "trn_1", add={"from_the_future": "s3cret"})
        with pytest.raises(StoreUnavailable, match="from_the_future") as refusal:
            await store.get(Training, "trn_1")
        with pytest.raises(StoreUnavailable, match="from_the_future"):
            await store.find(Training)
    assert "s3cret" not in everything_said_by(refusal.value)


async def test_the_database_itself_refuses_two_rollouts_that_hold_one_endpoint(url: str) -> None:
    async with started(url) as store:
        await store.apply(opened(make_rollout("rol_1")))
    copy = (
        "INSERT INTO switchyard_rollouts (id, phase, revision, created_at, endpoint, holds_endpoint, body)"
        " SELECT 'rol_2', phase, revision, created_at, endpoint, :holds, body FROM switchyard_rollouts"
    )
    with pytest.raises(IntegrityError):
        execute(url, copy, holds=True)
    execute(url, copy, holds=False)
    async with started(url) as store:
        assert len(await store.find(Rollout)) == 2


async def test_while_somebody_else_holds_the_lock_reading_goes_on_and_writing_is_refused(url: str) -> None:
    before = make_training("trn_1")
    async with started(url, patience=0) as store:
        await store.apply(opened(before))
        with open_database(url) as database, database.writes.begin():
            with pytest.raises(StoreUnavailable):
                await store.apply(Update(before, before.evolve(2.0)))
            with pytest.raises(StoreUnavailable):
                await store.check()
            assert await store.get(Training, "trn_1") == before
        await store.apply(Update(before, before.evolve(2.0)))
        await store.check()


async def test_a_postgresql_that_restarts_is_used_again_by_the_same_store() -> None:
    with run_postgres() as postgres:
        async with started(postgres.url()) as store:
            await store.apply(opened(make_training("trn_1")))
            postgres.stop()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await store.get(Training, "trn_1")
                with pytest.raises(StoreUnavailable):
                    await store.apply(opened(make_training("trn_2")))
            postgres.start()
            await store.apply(opened(make_training("trn_3")))
            assert [training.id for training in await store.find(Training)] == ["trn_1", "trn_3"]


async def test_one_router_leads_and_the_next_when_it_has_gone(url: str) -> None:
    async with started(url) as second:
        async with started(url) as first:
            assert [await first.lead(), await second.lead(), await first.lead()] == [True, False, True]
            await second.check()
        assert await second.lead()


async def test_a_lead_that_was_cut_off_is_whose_asks_first(postgres: Any) -> None:
    url = postgres.create_database()
    async with started(url) as first, started(url) as second:
        assert await first.lead()
        cut_sessions(url)
        assert await first.lead()
        cut_sessions(url)
        assert await second.lead()
        assert not await first.lead()


def cut_sessions(url: str) -> None:
    """Returns when they have ended, or after a minute."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 60000) {others}")


async def test_postgresql_ends_the_turn_of_a_writer_that_is_gone(postgres: Any) -> None:
    url = postgres.create_database()
    async with started(url) as store:
        gone = psycopg.connect(url)
        gone.execute(f"SELECT pg_advisory_xact_lock({POSTGRES_WRITER_LOCK})")
        gone.close()
        await store.check()


@pytest.mark.parametrize(
    "address",
    [
        "mysql://user:s3cret@localhost/db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:s3cret?mode=memory&uri=true",
        "s3cret",
    ],
)
def test_an_address_that_cannot_be_a_store_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(UnsupportedSetting) as refusal:
        SqlStore(address)
    assert "s3cret" not in everything_said_by(refusal.value)


async def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    store = SqlStore("postgresql://switchyard:s3cret@127.0.0.1:1/db?application_name=s3cret")
    with pytest.raises(
        StoreUnavailable, match=r"postgresql://switchyard:\*\*\*@127\.0\.0\.1:1/db"
    ) as refusal:
        await store.start()
    await store.close()
    assert "s3cret" not in everything_said_by(refusal.value)


async def test_a_file_that_cannot_be_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-directory").mkdir()
    (tmp_path / "a-text").write_text("This is not a database, and long enough to be looked at." * 100)
    for name in ("a-directory", "a-text", "a-text/store.db"):
        store = SqlStore(f"sqlite:///{tmp_path}/{name}")
        with pytest.raises(StoreUnavailable, match=name):
            await store.start()
        await store.close()


async def test_the_files_of_sqlite_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    async with started(f"sqlite:///{tmp_path}/state/store.db") as store:
        await store.apply(opened(make_training("trn_1")))
        files = sorted((tmp_path / "state").iterdir())
        assert [file.name for file in files] == ["store.db", "store.db-shm", "store.db-wal"]
        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_not_the_opened_one_any_more_is_named(tmp_path: Path, replaced: bool) -> None:
    async with started(f"sqlite:///{tmp_path}/store.db") as store:
        await store.check()
        (tmp_path / "store.db").rename(tmp_path / "moved.db")
        if replaced:
            (tmp_path / "store.db").touch()
        with pytest.raises(StoreUnavailable, match=r"store\.db is no longer the file that was opened"):
            await store.check()
        (tmp_path / "moved.db").rename(tmp_path / "store.db")
        await store.check()


def test_every_connection_to_sqlite_syncs_what_it_commits(tmp_path: Path) -> None:
    with open_database(f"sqlite:///{tmp_path}/store.db") as database:
        database.prepare()
        with database.reads.connect() as one, database.reads.connect() as other:
            for reading in (one, other):
                assert reading.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert reading.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.parametrize("kind", list(tables.TABLES))
@pytest.mark.parametrize("newest_first", [False, True])
def test_no_query_reads_a_whole_table_to_find_a_few_records(
    tmp_path: Path, kind: type[Training], newest_first: bool
) -> None:
    file = f"{tmp_path}/store.db"
    with open_database(f"sqlite:///{file}") as database:
        database.prepare()
        bring_up_to_date(database)
    filters: list[Mapping[str, Any]] = [
        {"phases": ["pending"], "endpoint": None, "limit": None},
        {"phases": ["pending", "probing"], "endpoint": None, "limit": 5},
        {"phases": None, "endpoint": None, "limit": 20},
    ]
    if "endpoint" in tables.TABLES[kind].c:
        filters += [
            {"phases": None, "endpoint": "default", "limit": 1},
            {"phases": ["pending", "probing"], "endpoint": "default", "limit": None},
        ]
    with closing(sqlite3.connect(file)) as plain:
        for each in filters:
            query = tables.select_bodies(kind, newest_first=newest_first, older_than=None, **each)
            statement = str(query.compile(compile_kwargs={"literal_binds": True}))
            plan = [row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {statement}")]
            assert "USING INDEX switchyard_" in plan[0], (each, plan)
            if each["phases"] or each["endpoint"]:
                assert plan[0].startswith("SEARCH"), (each, plan)


def rewrite_body(
    url: str, record_id: str, *, remove: tuple[str, ...] = (), add: Mapping[str, object] | None = None
) -> None:
    with open_database(url) as database, database.writes.begin() as writing:
        table = tables.trainings
        body = json.loads(writing.execute(table.select().where(table.c.id == record_id)).one().body)
        kept = {name: value for name, value in body.items() if name not in remove} | dict(add or {})
        writing.execute(table.update().where(table.c.id == record_id).values(body=json.dumps(kept)))


def everything_said_by(error: BaseException) -> str:
    """What a log would hold: the message and the whole chain that it was raised from."""
    hint = getattr(error, "hint", None) or ""
    return hint + "".join(line for line in traceback.format_exception(error) if "File " not in line)
