"""The folder of each workload: what was asked, who runs, how it ended, what it printed.

It is the record that outlives everybody. `alive` is locked by the shim for as long as it lives, so whether a
workload runs is never guessed from a pid, which another process may have by now, nor after a reboot.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router.core.workload import Role, WorkloadState, WorkloadStatus

ORDER, STARTED, ENDED, ALIVE, LAUNCH = "order.json", "started.json", "ended.json", "alive", "launch.lock"
SHIM_LOG = "shim.log"
GONE = ".gone-"  # prefix of folders that are being deleted


@dataclass(frozen=True)
class Order:
    """What was launched, without its environment, which may hold secrets."""

    owner: str
    name: str
    role: Role
    digest: str
    address: str | None
    scratch: str  # its TMPDIR
    groups: tuple[str, ...]


class Home:
    """Blocking, a few small files at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def launching(self) -> Iterator[int]:
        """One launch or removal of an owner at a time; the shim holds the lock until its child has started.

        So whoever gets it after a router that was killed finds either a record of the child, or no child.
        """
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(self.path / LAUNCH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # removed since the line before
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self._is_current(lock):
                    continue
                yield lock
                return
            finally:
                os.close(lock)

    def _is_current(self, lock: int) -> bool:
        """Whether the lock's file is still the one at its path: a removal takes the file away."""
        try:
            return os.path.samestat(os.fstat(lock), (self.path / LAUNCH).stat())
        except FileNotFoundError:
            return False

    def write_order(self, order: Order) -> None:
        temporary = self.path / f"{ORDER}.tmp"
        with temporary.open("w") as file:
            file.write(json.dumps(asdict(order)))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / ORDER)
        for directory in (self.path, self.path.parent):
            sync_directory(directory)

    def read_order(self) -> Order | None:
        fields = self._read(ORDER)
        if fields is None:
            return None
        return Order(**(fields | {"role": Role(fields["role"]), "groups": tuple(fields["groups"])}))

    def shim(self) -> int | None:
        """Pid that the shim had when it started."""
        started = self._read(STARTED)
        return int(started["shim"]) if started is not None else None

    def is_alive(self) -> bool:
        """Whether the shim lives."""
        return not self._try_alive(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def wait_for_shim(self) -> None:
        """Returns when the shim is gone."""
        self._try_alive(fcntl.LOCK_SH)

    def _try_alive(self, how: int) -> bool:
        """Whether the shim's lock could be had, which means that there is no shim."""
        try:
            descriptor = os.open(self.path / ALIVE, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    def state(self) -> WorkloadState | None:
        """None: nothing was ever started here."""
        order, started = self.read_order(), self._read(STARTED)
        if order is None or started is None:
            return None
        alive = self.is_alive()
        # Read after `alive`: a shim writes how it ended before it lets go of the lock.
        ended = self._read(ENDED)
        running = alive and ended is None
        ended = ended or {}  # without a record, its shim was killed: how it ended is lost
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

    def is_lost(self) -> bool:
        """Whether its shim was killed, which leaves nobody to end the child's children."""
        return self.shim() is not None and not self.is_alive() and self._read(ENDED) is None

    def read_logs(self, tail_bytes: int) -> str:
        """The end of what it printed, from the two files that there are at most."""
        while True:
            with open_log(self.path / "output.log") as newer, open_log(self.path / "output.log.1") as older:
                if newer and older and os.path.sameopenfile(newer, older):
                    continue  # the log was turned over between the two
                text = read_tail(newer, tail_bytes)
                text = read_tail(older, tail_bytes - len(text)) + text
                return text.decode("utf-8", "replace")

    def delete(self) -> None:
        """To be called with the launch lock held. At no moment is there half a record at its path."""
        order = self.read_order()
        gone = self.path.with_name(f"{GONE}{secrets.token_hex(8)}")
        self.path.rename(gone)
        if order is not None:
            shutil.rmtree(order.scratch, ignore_errors=True)  # the system may clean up there as well
        shutil.rmtree(gone)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            text = (self.path / name).read_text()
        except FileNotFoundError:
            return None
        fields: dict[str, Any] = json.loads(text)
        return fields


def list_homes(folder: Path) -> list[Home]:
    paths = sorted(folder.iterdir()) if folder.exists() else []
    return [Home(path) for path in paths if not path.name.startswith(GONE)]


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def open_log(path: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_tail(log: int | None, size: int) -> bytes:
    if log is None or size <= 0:
        return b""
    return os.pread(log, size, max(0, os.fstat(log).st_size - size))
