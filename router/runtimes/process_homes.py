"""The folder of each workload: what was asked, who runs, how it ended, what it printed.

It is the record that outlives everybody. `alive` is locked by the shim for as long as it lives, so whether a
workload runs is never guessed from a pid, which another process may have by now. `launch.lock` is held by
whoever launches or removes, and by a shim until its child has started, so nobody meets a half-made workload.
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from router.core.errors import InvalidRequest, RuntimeUnavailable
from router.core.workload import Role, WorkloadState, WorkloadStatus

ORDER, STARTED, ENDED, ALIVE, LAUNCH_LOCK = "order.json", "started.json", "ended.json", "alive", "launch.lock"
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
SHIM_LOG = "shim.log"
GONE = ".gone-"  # prefix of folders that are being deleted
LONGEST_CHARACTER = 4  # bytes in UTF-8, of which all but the first are among:
CONTINUATIONS = bytes(range(0x80, 0xC0))
OUTPUT = ("output.log", "output.log.1")  # the newer first

log = structlog.get_logger()


class UnreadableRecord(RuntimeUnavailable):
    """A file that says what was launched is damaged. What it started, if it runs, was left alone."""


@dataclass(frozen=True)
class Order:
    """What was launched, without its environment, which may hold secrets."""

    owner: str
    name: str
    role: Role
    digest: str
    address: str | None
    groups: tuple[str, ...]
    scratch: str | None = None  # its TMPDIR


@dataclass(frozen=True)
class Launched:
    """What never changes once a workload has started."""

    order: Order
    shim: int
    started_at: float
    written_at: int  # of the file that says so


class Home:
    """Blocking, a few small files at a time. What can never change any more is read only once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._launched: Launched | None = None
        self._ended: WorkloadState | None = None

    # --- launching and removing -------------------------------------------------------------------

    @contextmanager
    def turn(self) -> Iterator[int]:
        """One launch or removal of an owner at a time. Yields the descriptor of the lock."""
        descriptor = self._take_lock()
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _take_lock(self) -> int:
        path = self.path / LAUNCH_LOCK
        while True:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # removed since the line before
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
            os.close(descriptor)  # removed while we waited: this lock protects nothing any more

    def write_order(self, order: Order) -> None:
        temporary = self.path / f"{ORDER}.tmp"
        with temporary.open("w") as file:
            json.dump(asdict(order), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / ORDER)

    def discard(self) -> Path | None:
        """Forget it in one step; the caller deletes the folder that is returned. Needs the turn."""
        target = self.path.with_name(f"{GONE}{secrets.token_hex(8)}")
        try:
            self.path.rename(target)
        except FileNotFoundError:
            return None
        return target

    # --- looking ----------------------------------------------------------------------------------

    def state(self) -> WorkloadState | None:
        """None: nothing was ever started here."""
        launched = self.launched()
        if launched is None:
            return None
        if self._ended is not None:
            return self._ended
        alive = self.is_alive()
        # Read after `alive`: a shim writes how it ended before it lets go of the lock.
        ended = self._read(ENDED)
        how = ended or {}
        order = launched.order
        state = WorkloadState(
            owner=order.owner,
            name=order.name,
            role=order.role,
            status=WorkloadStatus.RUNNING if alive and ended is None else WorkloadStatus.EXITED,
            address=order.address,
            exit_code=how.get("exit_code"),
            out_of_memory=how.get("out_of_memory"),
            started_at=launched.started_at,
            finished_at=how.get("finished_at"),
        )
        if not state.running:
            self._ended = state
        return state

    def launched(self) -> Launched | None:
        try:
            found = (self.path / STARTED).stat()
        except FileNotFoundError:
            self._launched = self._ended = None
            return None
        if self._launched is None or self._launched.written_at != found.st_mtime_ns:
            self._launched = self._ended = None
            order, started = self.read_order(), self._read(STARTED)
            if order is None or started is None:
                return None
            with self._told_if_damaged(STARTED):
                shim, started_at = int(started["shim"]), float(started["started_at"])
            self._launched = Launched(order, shim, started_at, found.st_mtime_ns)
        return self._launched

    def read_order(self) -> Order | None:
        fields = self._read(ORDER)
        if fields is None:
            return None
        with self._told_if_damaged(ORDER):
            return Order(**(fields | {"role": Role(fields["role"]), "groups": tuple(fields["groups"])}))

    def shim(self) -> int | None:
        """Pid of the shim, if it lives."""
        launched = self.launched()
        return launched.shim if launched is not None and self.is_alive() else None

    def is_lost(self) -> bool:
        """It started, and nobody is left who knows how it ended."""
        return self.launched() is not None and not self.is_alive() and self._read(ENDED) is None

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

    def await_shim(self) -> None:
        """Blocks until no shim lives here."""
        with opened(self.path / ALIVE) as descriptor:
            if descriptor is not None:
                fcntl.flock(descriptor, fcntl.LOCK_SH)

    def read_logs(self, tail_bytes: int) -> str:
        """The end of what it printed, from the two files that there are at most; as text a store can keep."""
        with opened(self.path / OUTPUT[0]) as newer, opened(self.path / OUTPUT[1]) as older:
            text = b"" if newer is None else read_tail(newer, tail_bytes)
            # Moved between the two opens, the same file would be read twice.
            if older is not None and (newer is None or not os.path.sameopenfile(newer, older)):
                text = read_tail(older, tail_bytes - len(text)) + text
        return skip_cut_character(text).decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            text = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        with self._told_if_damaged(name):
            return dict(json.loads(text))

    @contextmanager
    def _told_if_damaged(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError) as error:
            raise UnreadableRecord(
                f"{self.path / name} is damaged ({error}), so {self.path.name} is not known any more."
                " What it started, if it runs, was left alone.",
                hint="end its processes and delete the folder",
            ) from error


class Homes:
    """All of them. Only the router's own user may look inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Home] = {}
        self._damaged: set[str] = set()  # owners that were told of

    def prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, owner: str) -> Home:
        """Raises InvalidRequest for what cannot be an id."""
        if not OWNER.fullmatch(owner):
            raise InvalidRequest(f"{owner!r} cannot name a trainer or server.")
        return self._known.get(owner) or Home(self.folder / owner)

    def all(self) -> list[Home]:
        try:
            owners = sorted(path.name for path in self.folder.iterdir() if OWNER.fullmatch(path.name))
        except FileNotFoundError:
            return []
        self._known = {owner: self.of(owner) for owner in owners}
        return list(self._known.values())

    def gone(self) -> list[Path]:
        """What still has to be deleted."""
        return list(self.folder.glob(f"{GONE}*"))

    def states(self) -> list[WorkloadState]:
        states = []
        for home in self.all():
            with self.passing_over_damage(home):
                states.append(home.state())
        return [state for state in states if state is not None]

    @contextmanager
    def passing_over_damage(self, home: Home) -> Iterator[None]:
        """One damaged record must not keep anybody from all the others. Each is told of once."""
        try:
            yield
        except UnreadableRecord as error:
            if home.path.name not in self._damaged:
                self._damaged.add(home.path.name)
                log.warning("a workload is passed over", owner=home.path.name, error=error.message)


@contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """A descriptor for reading; None if there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_tail(descriptor: int, size: int) -> bytes:
    end = os.fstat(descriptor).st_size
    size = max(0, min(size, end))
    return os.pread(descriptor, size, end - size)


def skip_cut_character(text: bytes) -> bytes:
    """Without the rest of a UTF-8 character whose beginning was cut off."""
    rest = text.lstrip(CONTINUATIONS)
    return rest if len(text) - len(rest) < LONGEST_CHARACTER else text
