"""The folder of each workload: what was asked, who runs, how it ended, what it printed.

It is the record that outlives everybody. `alive` is locked by the shim for as long as it lives, so whether a
workload runs is never guessed from a pid, which another process may have by now.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router.core.workload import Role, WorkloadState, WorkloadStatus

ORDER, STARTED, ENDED, ALIVE = "order.json", "started.json", "ended.json", "alive"


@dataclass(frozen=True)
class Order:
    """What was launched, without its environment, which may hold secrets."""

    owner: str
    name: str
    role: Role
    digest: str
    address: str | None
    groups: tuple[str, ...]


class Home:
    """Blocking, a few small files at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def owner(self) -> str:
        return self.path.name

    @contextmanager
    def launching(self) -> Iterator[int]:
        """One launch of an owner at a time; the shim holds the lock too until its child has started."""
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def write_order(self, order: Order) -> None:
        text = json.dumps(asdict(order))
        temporary = self.path / f"{ORDER}.tmp"
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / ORDER)

    def read_order(self) -> Order | None:
        fields = self._read(ORDER)
        if fields is None:
            return None
        return Order(**(fields | {"role": Role(fields["role"]), "groups": tuple(fields["groups"])}))

    def shim(self) -> int | None:
        """Pid of the shim, if it lives."""
        started = self._read(STARTED)
        return int(started["shim"]) if started is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        try:
            descriptor = os.open(self.path / ALIVE, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def state(self) -> WorkloadState | None:
        """None: nothing was ever started here."""
        order, started = self.read_order(), self._read(STARTED)
        if order is None or started is None:
            return None
        alive = self.is_alive()
        # Read after `alive`: a shim writes how it ended before it lets go of the lock.
        ended = self._read(ENDED) or {}
        running = alive and not ended
        return WorkloadState(
            owner=order.owner,
            name=order.name,
            role=order.role,
            status=WorkloadStatus.RUNNING if running else WorkloadStatus.EXITED,
            address=order.address,
            exit_code=ended.get("exit_code"),
            out_of_memory=ended.get("out_of_memory"),
            started_at=started["started_at"],
            finished_at=ended.get("finished_at"),
        )

    def read_logs(self, tail_bytes: int) -> str:
        """The end of what it printed, from the two files that there are at most."""
        text = b""
        for name in ("output.log", "output.log.1"):
            missing = tail_bytes - len(text)
            if missing > 0:
                text = read_tail(self.path / name, missing) + text
        return text.decode("utf-8", "replace")

    def delete(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            text = (self.path / name).read_text()
        except FileNotFoundError:
            return None
        fields: dict[str, Any] = json.loads(text)
        return fields


def read_tail(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - size))
            return file.read(size)
    except FileNotFoundError:
        return b""
