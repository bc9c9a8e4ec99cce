"""What `scripts/backup` packs and `scripts/restore` unpacks, on files alone."""

import gzip
import io
import json
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from scripts.archive import MANIFEST, ArchiveError, check, find_content, pack, unpack

ACTIVE = {"server_id": "srv_1", "address": "127.0.0.1:1", "model_name": "Tiny", "model_version": 2}
PROCESS = "process"


def make_state(base: Path, number: int = 42) -> None:
    home = base / "state" / "slots" / "default"
    for each in (number - 1, number):
        slot = home / str(each)
        slot.mkdir(parents=True)
        (slot / "active").write_text("127.0.0.1:1")
        (slot / "traffic.json").write_text(json.dumps({"active": ACTIVE}))
    (home / "current").symlink_to(str(number))
    make_database(base / "state" / "switchyard.db")
    make_database(base / "mlflow" / "mlflow.db")
    artifact = base / "mlflow" / "artifacts" / "1" / "model.bin"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"weights" * 1000)
    source = base / "state" / "process" / "sources" / "ab" / "run.sh"
    source.parent.mkdir(parents=True)
    source.write_text("#!/bin/sh\n")
    source.chmod(0o755)


def make_database(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE pairs (one INTEGER, two INTEGER)")


def make_archive(base: Path) -> bytes:
    output = io.BytesIO()
    pack(PROCESS, base, output)
    return output.getvalue()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_state(tmp_path / "stack")
    return tmp_path / "stack"


def test_what_was_packed_comes_out_as_it_was(base: Path, tmp_path: Path) -> None:
    (base / "state" / "process" / "environments").mkdir()
    (base / "state" / "process" / "environments" / "large").write_text("made anew where it is needed")
    archive = make_archive(base)
    assert check(io.BytesIO(archive))["serving"] == [{"endpoint": "default", **ACTIVE}]

    other = tmp_path / "other"
    unpack(PROCESS, other, io.BytesIO(archive))
    found = {path.relative_to(other).as_posix() for path in other.rglob("*") if not path.is_dir()}
    assert found == {
        "state/switchyard.db",
        "state/slots/default/42/active",
        "state/slots/default/42/traffic.json",
        "state/process/sources/ab/run.sh",
        "mlflow/mlflow.db",
        "mlflow/artifacts/1/model.bin",
    }
    assert (other / "state/slots/default/current").readlink() == Path("42")
    assert (other / "state/process/sources/ab/run.sh").stat().st_mode & 0o777 == 0o755
    assert (other / "state/switchyard.db").stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_written_to_is_packed_as_of_one_moment(base: Path, tmp_path: Path) -> None:
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(base / "state" / "switchyard.db", timeout=60)) as database:
            number = 0
            while not ended.is_set():
                number += 1
                with database:
                    database.execute("INSERT INTO pairs VALUES (?, NULL)", (number,))
                    database.execute("UPDATE pairs SET two = one WHERE two IS NULL")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        archives = [make_archive(base) for _ in range(5)]
    finally:
        ended.set()
        writer.join()
    for number, archive in enumerate(archives):
        other = tmp_path / str(number)
        unpack(PROCESS, other, io.BytesIO(archive))
        with closing(sqlite3.connect(other / "state" / "switchyard.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert database.execute("SELECT count(*) FROM pairs WHERE one IS NOT two").fetchall() == [(0,)]


def test_what_was_there_before_is_gone(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_state(other, number=99)
    (other / "mlflow" / "artifacts" / "2").mkdir()
    unpack(PROCESS, other, io.BytesIO(make_archive(base)))
    assert sorted(path.name for path in (other / "state/slots/default").iterdir()) == ["42", "current"]
    assert [path.name for path in (other / "mlflow" / "artifacts").iterdir()] == ["1"]


def rewrite(archive: bytes, change: str) -> bytes:
    """The same archive with one thing wrong."""
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as before,
        tarfile.open(fileobj=output, mode="w:gz") as after,
    ):
        for entry in before:
            content = before.extractfile(entry) if entry.isfile() else None
            data = content.read() if content is not None else b""
            if change == "without its manifest" and entry.name == MANIFEST:
                continue
            if change == "of a later format" and entry.name == MANIFEST:
                data = data.replace(b'"format": 1', b'"format": 2')
            if change == "with another content" and entry.name.endswith("model.bin"):
                data = b"Weights" + data[7:]
            if change == "without a file" and entry.name.endswith("model.bin"):
                continue
            if change == "with a link that leads elsewhere" and entry.issym():
                entry.linkname = "/etc"
            if change == "with a file that leads elsewhere" and entry.name.endswith("model.bin"):
                entry.name = "state/../../model.bin"
            if change == "with a file beside the state" and entry.name.endswith("model.bin"):
                entry.name = "elsewhere/model.bin"
            entry.size = len(data)
            after.addfile(entry, io.BytesIO(data))
    return output.getvalue()


CHANGES = (
    *("without its manifest", "of a later format", "with another content", "without a file"),
    *("with a link that leads elsewhere", "with a file that leads elsewhere", "with a file beside the state"),
)


@pytest.mark.parametrize("change", [*CHANGES, "cut off", "of something else", "with a broken bit"])
def test_an_archive_that_is_not_right_changes_nothing(base: Path, tmp_path: Path, change: str) -> None:
    archive = make_archive(base)
    match change:
        case "cut off":
            archive = archive[: len(archive) // 2]
        case "of something else":
            archive = gzip.compress(b"a letter")
        case "with a broken bit":
            middle = len(archive) // 2
            archive = archive[:middle] + bytes([archive[middle] ^ 1]) + archive[middle + 1 :]
        case _:
            archive = rewrite(archive, change)
    other = tmp_path / "other"
    make_state(other, number=99)
    with pytest.raises(ArchiveError):
        unpack(PROCESS, other, io.BytesIO(archive))
    assert (other / "state/slots/default/current").readlink() == Path("99")
    assert [path.name for path in tmp_path.rglob(".restoring")] == []
    assert not (tmp_path / "model.bin").exists()


def test_it_is_told_what_would_be_replaced(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty" / "state" / "process").mkdir(parents=True)
    assert find_content(PROCESS, tmp_path / "empty") is None
    assert find_content(PROCESS, base) is not None
