"""Reads Caddy's access log as it grows, so that any server can be judged by its answers, whatever its image.

A cursor is the file's inode and an offset in it: it survives rotation (Caddy renames the file) and a restart
of the router.
"""

import json
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from router.core.errors import InvalidRequest
from router.core.tallies import CLIENT_GONE
from router.proxies.base import Sample
from router.proxies.durable import translate_storage_errors

BAD_REQUEST = 400  # without an answer of the server: Caddy could not read the request's body
MOST_BYTES = 8 * 2**20  # read in one call; after a longer gap the next call goes on from there


class AccessLog:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, cursor: str | None) -> tuple[list[Sample], str]:
        """Samples of the whole lines since the cursor (None: of none) and the next cursor. Blocks."""
        with translate_storage_errors(f"reading {self._path}"), ExitStack() as opened:
            if cursor is None:
                return [], self._find_end(opened)
            inode, offset = parse_cursor(cursor)
            samples: list[Sample] = []
            left = MOST_BYTES
            for number, file in self._open_since(inode, opened).items():
                start = offset if number == inode and begins_line(file, offset) else 0
                inode, offset = number, read_samples(file, start, left, samples)
                left -= offset - start
                if left <= 0:
                    break
            return samples, f"{inode}:{offset}"

    def rewind(self) -> str:
        """A cursor into the current file, as far back as one call of `read` reaches. Blocks."""
        with translate_storage_errors(f"reading {self._path}"), ExitStack() as opened:
            current = self._open(self._path, opened)
            if current is None:
                return "0:0"
            status = os.fstat(current.fileno())
            start = max(0, status.st_size - MOST_BYTES)
            current.seek(start)
            return f"{status.st_ino}:{start + len(current.readline()) if start else 0}"

    def _find_end(self, opened: ExitStack) -> str:
        current = self._open(self._path, opened)
        if current is None:
            return "0:0"
        status = os.fstat(current.fileno())
        tail_start = max(0, status.st_size - 2**16)
        current.seek(tail_start)
        end = tail_start + current.read().rfind(b"\n") + 1
        return f"{status.st_ino}:{end}"

    def _open_since(self, inode: int, opened: ExitStack) -> dict[int, BinaryIO]:
        """By inode, oldest first, from this inode on. If it is gone, all that there are came after it.

        The current file is opened first: if it is rotated meanwhile, it is found among the old ones.
        """
        current = self._open(self._path, opened)
        if current is not None and inode_of(current) == inode:
            return {inode: current}
        old = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"))
        found = [file for path in old if (file := self._open(path, opened))]
        if current is not None:
            found.append(current)
        files = {inode_of(file): file for file in found}
        numbers = list(files)
        first = numbers.index(inode) if inode in files else 0
        return {number: files[number] for number in numbers[first:]}

    def _open(self, path: Path, opened: ExitStack) -> BinaryIO | None:
        with suppress(FileNotFoundError):  # not written yet, or just rotated away
            return opened.enter_context(path.open("rb"))
        return None


def inode_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def begins_line(file: BinaryIO, offset: int) -> bool:
    """Whether the cursor can be this file's: inodes are used again, and files get truncated."""
    if offset == 0:
        return True
    file.seek(offset - 1)
    return file.read(1) == b"\n"


def read_samples(file: BinaryIO, start: int, most_bytes: int, samples: list[Sample]) -> int:
    """Adds to `samples`; returns where the next whole line will begin."""
    file.seek(start)
    offset = start
    for line in file:
        if not line.endswith(b"\n") or offset - start >= most_bytes:
            break
        offset += len(line)
        if sample := parse_line(line):
            samples.append(sample)
    return offset


def parse_line(line: bytes) -> Sample | None:
    """None: no server was chosen for it, a person tried the candidate by header, who may send what users do
    not, its body broke off, of which the server knows nothing, or the line was torn by a power cut."""
    try:
        entry = json.loads(line)
        if not entry.get("upstream") or entry.get("by_header"):
            return None
        latency = entry["latency_ms"]  # no number without an answer from the server
        answered = isinstance(latency, int | float)
        if not answered and entry["status"] == BAD_REQUEST:
            return None
        return Sample(
            at=float(entry["ts"]),
            endpoint=entry["endpoint"],
            address=entry["upstream"],
            status=entry["status"] or CLIENT_GONE,  # Caddy writes 0
            # Of a server that gave none it is all the time that the request took.
            seconds=latency / 1000 if answered else float(entry["duration"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_cursor(cursor: str) -> tuple[int, int]:
    inode, _, offset = cursor.partition(":")
    if not (inode.isdecimal() and offset.isdecimal()):
        raise InvalidRequest(f"{cursor!r} is not a cursor of the access log")
    return int(inode), int(offset)
