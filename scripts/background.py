"""Background processes that are found again later: a record on disk for each, guarded against pid reuse."""

import json
import os
import signal
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
            env=dict(environment),
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
    if not path.exists():
        return None
    return Record(**json.loads(path.read_text()))


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


def stop_process(path: Path, grace_seconds: float) -> bool:
    """SIGTERM to the leader; after the grace SIGKILL to its whole group. False: it did not run."""
    process = find_process(read_record(path))
    if process is not None:
        process.terminate()
        with suppress(psutil.TimeoutExpired):
            process.wait(grace_seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    path.unlink(missing_ok=True)
    return process is not None
