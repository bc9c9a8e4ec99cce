"""Files that are whole or not there, whatever interrupts their writing: a crash, a power cut, a full disk.

Caddy reads these files while they change, and they are what is left of the router's mind after its death.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from router.core.errors import ProxyUnavailable, StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def translate_storage_errors(doing: str) -> Iterator[None]:
    """`doing` completes the sentence "the disk was full while ..."."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"the disk was full while {doing}; what was there before still holds",
                hint="Free some space and try again.",
            ) from error
        raise ProxyUnavailable(
            f"{error.strerror or error} while {doing}; what was there before still holds",
            hint=f"Look at {error.filename}: its owner, its mode, its file system.",
        ) from error


def write_together(directory: Path, files: Mapping[str, bytes]) -> None:
    """New files in a new directory: they, it and its name are on the disk when this returns.

    A journal commits in one go for all who wait, so syncing side by side costs about as much as one sync;
    one after the other, on a busy disk, would be most of what a switch takes.
    """
    descriptors: list[int] = []
    try:
        for name, data in files.items():
            descriptors.append(open_new(directory / name))
            write_all(descriptors[-1], data)
        descriptors.append(open_directory(directory))
        descriptors.append(open_directory(directory.parent))
        with ThreadPoolExecutor(len(descriptors)) as threads:
            list(threads.map(os.fsync, descriptors))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """A rename is on the disk only when the directory that holds the name is."""
    descriptor = open_directory(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_new(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_synced(path: Path, data: bytes) -> None:
    descriptor = open_new(path)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """The old content or the new one, at every moment. Leaves no second file behind."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # what a killed writer left
    try:
        write_synced(new, data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
