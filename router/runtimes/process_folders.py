"""Folders in which things are made under one name and kept under another once they are whole.

What a killed router left half made there is cleared away by the next one, but never what somebody still
makes: another router, or an installer that outlived its router.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"  # suffix of the file beside the folder


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Nothing is cleared away meanwhile."""
    descriptor = begin_making(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def begin_making(folder: Path) -> int:
    """Blocking. Nothing is cleared away until the descriptor that this returns is closed everywhere."""
    descriptor = open_lock(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def clearing(folder: Path) -> Iterator[bool]:
    """False: somebody makes something there, and what is half made may be theirs."""
    descriptor = open_lock(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def open_lock(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(folder.with_suffix(LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
