"""Files of models on the local disk, named by their SHA-256, so that servers of one host share them.

A file is only ever put in whole, by a rename: what is there is complete. It is still checked whenever it is
read, since disks lie, and a server that shares the folder may have been taken over by the model it serves.
"""

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from modelkit.manifest import Digests, FileDigest

_PIECE = 1 << 20
# Neither a link, nor something that waits for a writer.
_LONGEST_INDEX = 16 << 20  # bytes
_KEPT = 10  # the URIs used last, whose files stay
_HOUR = 60 * 60  # seconds: no fetch takes as long
_DAY = 24 * _HOUR
_PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

Write = Callable[[bytes], Any]


class Corrupt(Exception):
    """A file is not what its digest says."""


class Remembered(msgspec.Struct, frozen=True):
    """What a URI named when MLflow was last asked."""

    folder: str
    digests: Digests
    name: str | None = None
    version: str | None = None
    run_id: str | None = None


class Cache:
    def __init__(self, folder: Path) -> None:
        self._blobs = folder / "sha256"
        self._models = folder / "models"
        for part in (self._blobs, self._models):
            part.mkdir(parents=True, exist_ok=True)
            if part.is_symlink():  # it leads to where this cache has nothing to write or to remove
                raise NotADirectoryError(f"{part} is a link")

    def has(self, digest: FileDigest) -> bool:
        try:
            found = self.path(digest).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == digest.size

    def path(self, digest: FileDigest) -> Path:
        return self._blobs / digest.sha256

    def read(self, digest: FileDigest) -> bytes:
        return b"".join(self._read(digest))

    def copy(self, digest: FileDigest, target: Path) -> None:
        """What is checked is the copy: the original may change once more."""
        with target.open("wb") as file:
            file.writelines(self._read(digest))

    def _read(self, digest: FileDigest) -> Iterator[bytes]:
        """Pieces of a file that prove only at the end to be the right ones."""
        path, found = self.path(digest), hashlib.sha256()
        if not self.has(digest):  # a pipe would be read for ever
            raise Corrupt(f"{path} has changed on the disk")
        with os.fdopen(os.open(path, _PLAIN), "rb") as file:
            left = digest.size  # it may grow meanwhile, for ever
            while piece := file.read(min(_PIECE, left)):
                left -= len(piece)
                found.update(piece)
                yield piece
        if found.hexdigest() != digest.sha256:
            raise Corrupt(f"{path} has changed on the disk")

    def put(self, fetch: Callable[[Write], None], expected: FileDigest | None = None) -> FileDigest:
        """Keeps what `fetch` writes. Raises Corrupt, and keeps nothing, if it is not what was expected."""
        handle, name = tempfile.mkstemp(dir=self._blobs, prefix="part-")
        try:
            found = _write(handle, fetch)
            if expected is None or found == expected:
                Path(name).replace(self.path(found))
        finally:
            Path(name).unlink(missing_ok=True)
        if expected is not None and found != expected:
            raise Corrupt(f"{found.size} bytes with SHA-256 {found.sha256}, expected {expected.sha256}")
        return found

    def remember(self, uri: str, known: Remembered) -> None:
        handle, name = tempfile.mkstemp(dir=self._models, prefix="part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(known))
            Path(name).replace(self._model(uri))
        finally:
            Path(name).unlink(missing_ok=True)

    def recall(self, uri: str) -> Remembered | None:
        return self._decode(self._model(uri))

    def _decode(self, index: Path) -> Remembered | None:
        try:
            with os.fdopen(os.open(index, _PLAIN), "rb") as file:
                content = file.read(_LONGEST_INDEX) or b""  # a pipe may give None
            return msgspec.json.decode(content, type=Remembered)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def prune(self) -> None:
        """Removes what fetches that were killed left behind, and versions that have not been used lately."""
        now = time.time()
        used = sorted(_list_plain(self._models, ".json"), key=lambda entry: -entry[1])
        keep = {path for path, _ in used[:_KEPT]}
        for path in tuple(keep):
            known = self._decode(path)
            keep.update(map(self.path, () if known is None else known.digests.files.values()))
        for folder in (self._blobs, self._models):
            for path, changed in _list_plain(folder):
                age = _HOUR if path.name.startswith("part-") else _DAY
                if path not in keep and now - changed > age:
                    with suppress(OSError):
                        path.unlink()

    def _model(self, uri: str) -> Path:
        return self._models / f"{hashlib.sha256(uri.encode()).hexdigest()}.json"


def _list_plain(folder: Path, suffix: str = "") -> list[tuple[Path, float]]:
    """Its files, and when each was last changed."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # another server may have removed it
                if entry.name.endswith(suffix) and entry.is_file(follow_symlinks=False):
                    found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_mtime))
    return found


def _write(handle: int, fetch: Callable[[Write], None]) -> FileDigest:
    digest = hashlib.sha256()
    with os.fdopen(handle, "wb") as file:

        def write(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        fetch(write)
        return FileDigest(digest.hexdigest(), file.tell())
