"""The state of a stack in one file: packed while the stack runs, checked whole before anything is replaced.

What refers is read before what it refers to: the router's records, then the slots, then MLflow's database,
then files. So a stack that comes out of an archive is at worst one that has crashed in between, which a
router puts right by itself, and no reference leads nowhere.

Only the standard library and nothing of ours: on Docker this file runs in a container that has the volumes.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

FORMAT = 1
STORE, REGISTRY = "state/switchyard.db", "mlflow/mlflow.db"
MANIFEST = "manifest.json"  # the last member, so that an archive without it is known to be cut off
STAGING = ".restoring"
CHUNK = 2**20


class ArchiveError(Exception):
    """Its text tells a person what is wrong and what was left as it was."""


@dataclass(frozen=True)
class Layout:
    """Where a stack keeps what it must find again, below one folder. Everything else it makes anew."""

    roots: tuple[str, ...]
    slots: str
    files: tuple[str, ...]


LAYOUTS = {
    "process": Layout(
        ("state", "mlflow"),
        "state/slots",
        ("mlflow/artifacts", "state/process/sources", "state/process/next-port"),
    ),
    "docker": Layout(  # each root is a volume
        ("state", "slots", "caddy", "mlflow"),
        "slots",
        ("mlflow/artifacts", "caddy/caddy.json"),
    ),
}


# --- packing ---------------------------------------------------------------------------------------------


def pack(runtime: str, base: Path, output: IO[bytes]) -> None:
    layout = LAYOUTS[runtime]
    packer = Packer(base, output)
    packer.add_database(STORE)
    serving = packer.add_slots(layout.slots)
    packer.add_database(REGISTRY)
    for name in layout.files:
        packer.add_files(name)
    packer.finish({"runtime": runtime, "serving": serving})


class Packer:
    def __init__(self, base: Path, output: IO[bytes]) -> None:
        self._base = base
        self._zip = gzip.GzipFile(fileobj=output, mode="wb", compresslevel=1)
        self._tar = tarfile.TarFile(fileobj=self._zip, mode="w", format=tarfile.PAX_FORMAT)
        self._files: dict[str, dict[str, object]] = {}

    def add_database(self, name: str) -> None:
        """A consistent copy, whoever writes to it meanwhile."""
        if not (self._base / name).exists():
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            with (
                closing(sqlite3.connect(f"file:{self._base / name}?mode=rw", uri=True, timeout=60)) as source,
                closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
            with copy.open("rb") as content:
                self._add(name, content, 0o600)

    def add_slots(self, name: str) -> list[dict[str, Any]]:
        """Of each endpoint what holds now. Returns the upstreams that have the traffic."""
        serving = []
        for current in sorted((self._base / name).glob("*/current")):
            number, files = read_slot(current)
            home = f"{name}/{current.parent.name}"
            for file, content in files.items():
                self._add(f"{home}/{number}/{file}", io.BytesIO(content), 0o644)
            self._add_link(f"{home}/current", number)
            active = json.loads(files["traffic.json"])["active"]
            if active is not None:
                serving.append({"endpoint": current.parent.name, **active})
        return serving

    def add_files(self, name: str) -> None:
        """One, or all in a folder; none is as good."""
        root = self._base / name
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            try:
                content = path.open("rb")
            except FileNotFoundError:
                continue  # it has just been deleted, so nothing refers to it
            with content:
                self._add(path.relative_to(self._base).as_posix(), content, path.stat().st_mode & 0o777)

    def finish(self, about: Mapping[str, object]) -> None:
        manifest = {"format": FORMAT, "made_at": int(time.time()), **about, "files": self._files}
        self._add(MANIFEST, io.BytesIO(json.dumps(manifest, indent=1).encode()), 0o600)
        self._tar.close()
        self._zip.close()

    def _add(self, name: str, content: IO[bytes], mode: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = content.seek(0, os.SEEK_END), mode, int(time.time())
        content.seek(0)
        hashing = Hashing(content)
        self._tar.addfile(entry, hashing)
        self._files[name] = {"size": entry.size, "sha256": hashing.digest.hexdigest()}

    def _add_link(self, name: str, target: str) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)
        self._files[name] = {"link": target}


class Hashing(io.RawIOBase):
    """What is read through it, hashed."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._content.read(size)
        self.digest.update(data)
        return data


def read_slot(current: Path) -> tuple[str, dict[str, bytes]]:
    """Number and files of what holds now; a switch may come in between, and old numbers are pruned."""
    while True:
        number = str(current.readlink())
        try:
            return number, {
                path.name: path.read_bytes() for path in sorted((current.parent / number).iterdir())
            }
        except FileNotFoundError:
            if str(current.readlink()) == number:
                raise


# --- unpacking -------------------------------------------------------------------------------------------


def check(archive: IO[bytes], keep: "Staging | None" = None) -> dict[str, Any]:
    """The manifest, once every file has been read and compared with it. Raises ArchiveError."""
    found: dict[str, dict[str, object]] = {}
    manifest: dict[str, Any] | None = None
    try:
        with tarfile.open(fileobj=archive, mode="r|gz") as tar:
            for entry in tar:
                if entry.issym():
                    found[entry.name] = {"link": entry.linkname}
                    if keep is not None:
                        keep.add_link(entry)
                    continue
                content = tar.extractfile(entry)
                if content is None:
                    raise ArchiveError(f"the archive holds {entry.name}, which is neither a file nor a link")
                if entry.name == MANIFEST:
                    manifest = json.load(content)
                    continue
                hashing = Hashing(content)
                with keep.open(entry) if keep is not None else nullcontext() as kept:
                    while data := hashing.read(CHUNK):
                        if kept is not None:
                            kept.write(data)
                found[entry.name] = {"size": entry.size, "sha256": hashing.digest.hexdigest()}
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise ArchiveError(f"the archive is damaged or cut off: {error}") from error
    compare(manifest, found)
    return manifest or {}


def compare(manifest: dict[str, Any] | None, found: dict[str, dict[str, object]]) -> None:
    if manifest is None:
        raise ArchiveError("the archive has no manifest: it is cut off, or no backup of a stack")
    if manifest.get("format") != FORMAT:
        raise ArchiveError(f"the archive has the format {manifest.get('format')}; this script reads {FORMAT}")
    wrong = sorted(
        name for name in {*found, *manifest["files"]} if found.get(name) != manifest["files"].get(name)
    )
    if wrong:
        raise ArchiveError(f"the archive is damaged: {', '.join(wrong[:5])} differ from its manifest")


def unpack(runtime: str, base: Path, archive: IO[bytes]) -> None:
    """In place of all that the roots hold, and only once all of it is there and right."""
    staging = Staging(base, LAYOUTS[runtime].roots)
    staging.clear()
    try:
        check(archive, staging)
        staging.swap_in()
    finally:
        staging.clear()


class Staging:
    """A folder inside each root, so that what was unpacked there gets to its place by renaming.

    Everything belongs to the owner of its root: the user of the container that a volume is for.
    """

    def __init__(self, base: Path, roots: Sequence[str]) -> None:
        self._roots = {name: base / name for name in roots}

    def clear(self) -> None:
        for root in self._roots.values():
            shutil.rmtree(root / STAGING, ignore_errors=True)

    def open(self, entry: tarfile.TarInfo) -> IO[bytes]:
        path, owner = self._place(entry)
        file = path.open("xb")
        os.fchmod(file.fileno(), entry.mode & 0o777)
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        return file

    def add_link(self, entry: tarfile.TarInfo) -> None:
        if not entry.linkname.isdecimal():
            raise ArchiveError(f"the archive holds a link that leads elsewhere: {entry.name}")
        path, owner = self._place(entry)
        path.symlink_to(entry.linkname)
        os.lchown(path, owner.st_uid, owner.st_gid)

    def swap_in(self) -> None:
        os.sync()  # what is renamed into place must be whole after a power cut
        for root in self._roots.values():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for old in root.iterdir():
                if old.name != STAGING:
                    shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
            for new in (root / STAGING).glob("*"):
                new.rename(root / new.name)
        os.sync()

    def _place(self, entry: tarfile.TarInfo) -> tuple[Path, os.stat_result]:
        """Where it goes, in folders that are there."""
        name, *rest = PurePosixPath(entry.name).parts
        if name not in self._roots or not rest or ".." in rest:
            raise ArchiveError(f"the archive holds {entry.name}, which is no part of a stack's state")
        root = self._roots[name]
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = root.stat()
        folder = root
        for part in (STAGING, *rest[:-1]):
            folder /= part
            if not folder.exists():
                folder.mkdir(mode=0o700)
                os.chown(folder, owner.st_uid, owner.st_gid)
        return folder / rest[-1], owner


def find_content(runtime: str, base: Path) -> str | None:
    """What would be lost; None: nothing of what an archive holds is there."""
    layout = LAYOUTS[runtime]
    for name in (STORE, layout.slots, REGISTRY, *layout.files):
        path = base / name
        if path.is_file() or any(each.is_file() for each in path.rglob("*")):
            return name
    return None


# --- in a container --------------------------------------------------------------------------------------


def main() -> int:
    verb, runtime, base = sys.argv[1:]
    try:
        if verb == "pack":
            pack(runtime, Path(base), sys.stdout.buffer)
        elif verb == "unpack":
            unpack(runtime, Path(base), sys.stdin.buffer)
        else:
            print(find_content(runtime, Path(base)) or "")
    except (ArchiveError, OSError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
