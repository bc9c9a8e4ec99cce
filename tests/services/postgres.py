"""A real PostgreSQL: a throw-away cluster on a unix socket, with a database for whoever asks."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

from tests.services.caddy import short_directory
from tests.services.processes import ServiceProcess

USER = "switchyard"
UNPACKED = Path(__file__).parents[2] / ".local" / "postgres"  # by scripts/get-postgres, where it is not root


class Postgres:
    """One cluster with data of its own; stopped and started again it keeps its data and its socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory  # on a short path, since the socket is in it
        binaries = find_binaries()
        environment = _environment(binaries)
        as_server = _as_server_user(directory)
        data = directory / "data"
        initdb = ["-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [*as_server, str(binaries / "initdb"), *initdb],
            env=environment,
            cwd=directory,
            capture_output=True,
            check=True,
        )
        # It need not survive a crash of the machine, and syncs would take most of the tests' time.
        options = ["-D", str(data), "-k", str(directory), "-c", "listen_addresses=", "-c", "fsync=off"]
        self._process = ServiceProcess(
            [*as_server, str(binaries / "postgres"), *options],
            environment,
            directory / "postgres.log",
        )
        self._numbers = count(1)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@/{database}?host={self.directory}"

    def start(self) -> None:
        self._process.start(self._answers)

    def stop(self) -> None:
        """The fast way: it ends whoever is connected, where SIGTERM would wait for them."""
        if self._process.running:
            os.kill(self._process.pid, signal.SIGINT)
        self._process.stop()

    def create_database(self, tablespace: Path | None = None) -> str:
        """An empty one, in a directory of the server user's if one is given. Returns its URL."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if tablespace is not None:
                where = sql.Identifier(f"space_{name}")
                location = sql.Literal(str(tablespace))
                connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(where, location))
                create += sql.SQL(" TABLESPACE {}").format(where)
            connection.execute(create)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """With its tablespace, if it has one of its own."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))
            space = sql.Identifier(f"space_{name}")
            connection.execute(sql.SQL("DROP TABLESPACE IF EXISTS {}").format(space))

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url()).close()
        except psycopg.OperationalError:
            return False
        return True


def find_binaries() -> Path:
    """Debian keeps them off PATH, one directory per version."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    directories = (Path("/"), UNPACKED)
    packaged = [found for root in directories for found in root.glob("usr/lib/postgresql/*/bin/initdb")]
    packaged.sort(key=lambda initdb: float(initdb.parents[1].name))
    if not packaged:
        raise RuntimeError("these tests need PostgreSQL: scripts/get-postgres")
    return packaged[-1].parent


def _environment(binaries: Path) -> dict[str, str]:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    if binaries.is_relative_to(UNPACKED):
        libraries = [str(each) for each in UNPACKED.glob("usr/lib/*-linux-gnu*")]
        environment["LD_LIBRARY_PATH"] = ":".join(libraries)
    return environment


def give_to_server_user(directory: Path) -> None:
    """PostgreSQL refuses to run as root, so under root its files belong to the user that its package made."""
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(directory, account.pw_uid, account.pw_gid)


def _as_server_user(directory: Path) -> list[str]:
    give_to_server_user(directory)
    if shutil.which("setpriv") is None:
        return []
    command = ["setpriv", "--pdeathsig=INT"]  # a test run that is killed leaves no server behind
    if os.geteuid() == 0:
        command += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
    return command


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    with short_directory() as directory:
        postgres = Postgres(directory)
        try:
            postgres.start()
            yield postgres
        finally:
            postgres.stop()
