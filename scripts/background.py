"""Background processes that are found again later: a record on disk for each, guarded against pid reuse."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

import psutil

CLOCK_TOLERANCE_SECONDS = (
    2.0  # start times are computed from the wall clock, which may be corrected meanwhile
)


MARK = "SWITCHYARD_SERVICE"  # variable that names a service's record, for all that it starts


@dataclass(frozen=True)
class Record:
    """What was started: the leader of a process group of its own."""

    pid: int
    started_at: float  # epoch seconds, as psutil reports it
    command: list[str]
    ports: dict[str, int]  # by the setting that moves each
    settings: dict[str, str] = field(default_factory=dict)  # what else it was told: see `fingerprint`


def start_process(
    record: Path,
    log: Path,
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path,
    ports: Mapping[str, int],
    settings: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """The caller keeps what it gets as long as it lives itself; the process goes on after that.

    What it writes only its own user can read.
    """
    for folder in (log.parent, record.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env={**environment, MARK: str(record)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    started_at = psutil.Process(child.pid).create_time()
    told = fingerprint(settings or {})
    text = json.dumps(asdict(Record(child.pid, started_at, list(command), dict(ports), told)))
    draft = record.with_suffix(".new")
    draft.write_text(text)
    draft.replace(record)
    return child


def fingerprint(settings: Mapping[str, str]) -> dict[str, str]:
    """Enough to see that one has changed: a value may be a secret."""
    return {name: sha256(value.encode()).hexdigest()[:16] for name, value in settings.items()}


def read_record(path: Path) -> Record | None:
    """None: there is none, or a damaged one; what it told of is still found by its mark."""
    try:
        return Record(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def find_process(record: Record | None) -> psutil.Process | None:
    """The recorded process if it still runs; a stranger that got the same pid since is not it."""
    if record is None:
        return None
    try:
        process = psutil.Process(record.pid)
        if abs(process.create_time() - record.started_at) > CLOCK_TOLERANCE_SECONDS:
            return None
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def find_marked(path: Path) -> list[psutil.Process]:
    """What was started under this record and its descendants, also if their leader has been killed."""
    found = []
    for process in psutil.process_iter():
        # Others' processes do not show their environment; those that just end have none.
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(path):
                found.append(process)
    return found


def stop_process(path: Path, grace_seconds: float) -> bool:
    """SIGTERM to the leader; what is left after the grace gets SIGKILL. False: nothing ran."""
    leader = find_process(read_record(path))
    marked = find_marked(path)
    for process in [leader] if leader is not None else marked:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs([leader] if leader is not None else marked, timeout=grace_seconds)
    while left := find_marked(path):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)  # not for ever: somebody else may have to reap it
    path.unlink(missing_ok=True)
    return leader is not None or bool(marked)
