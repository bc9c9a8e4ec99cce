"""From a workload to a running child, in steps that each can be interrupted by a kill of the router.

The record comes first, the child last. Who comes after a kill finds in the workload's home either a child
with its shim, or the traces of a launch that started nothing, which the next launch does again.
"""

import errno
import marshal
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from router.core.errors import LaunchFailed, StorageFull
from router.core.workload import Role, WorkloadState
from router.runtimes.base import Workload
from router.runtimes.process_cgroups import Cgroups
from router.runtimes.process_environments import Environments, base_interpreter
from router.runtimes.process_homes import SHIM_LOG, Home, Order
from router.runtimes.process_leftovers import MARK, end_leftovers
from router.runtimes.process_ports import HOST, Ports
from router.runtimes.process_sources import DESCRIPTION, Source, Sources

SHIM = Path(__file__).with_name("process_shim.py")
LOG_BYTES = 4 * 1024 * 1024  # of each of the two log files that a workload has at most
FULL = {errno.ENOSPC, errno.EDQUOT}
PYTHONS = {"python", "python3"}


@dataclass(frozen=True)
class Launcher:
    """Blocking: call it in a thread."""

    sources: Sources
    environments: Environments
    ports: Ports
    cgroups: Cgroups
    environment: Mapping[str, str]  # what every child inherits

    def launch(self, home: Home, workload: Workload) -> WorkloadState:
        """Start it, or find it started. Raises as `Runtime.launch`; then nothing was started."""
        state = home.state()
        if state is not None:
            return state
        source = self.sources.open(workload.image)
        interpreter = self.environments.interpreter(source.lock)  # takes minutes once: before the lock
        command = choose_command(workload, source, interpreter)
        with home.launching() as lock:
            state = home.state()
            if state is not None:
                return state
            try:
                return self._start(home, workload, source, interpreter, command, lock)
            except BaseException:
                end_leftovers(home.path, self.cgroups.paths(workload.owner))
                home.wait_for_shim()
                home.delete()
                raise

    def _start(
        self,
        home: Home,
        workload: Workload,
        source: Source,
        interpreter: Path,
        command: list[str],
        lock: int,
    ) -> WorkloadState:
        is_server = workload.role is Role.SERVER
        address = self.ports.reserve(workload.avoid_addresses) if is_server else None
        scratch = self._choose_scratch(home)
        groups = self.cgroups.create(workload.owner, workload.resources)
        home.write_order(
            Order(
                owner=workload.owner,
                name=workload.name,
                role=workload.role,
                digest=source.digest,
                address=address,
                scratch=str(scratch),
                groups=tuple(map(str, groups)),
            )
        )
        make_private(scratch)
        # A copy of its own: what it writes beside its source must not change what others run.
        folder = home.path / "work"
        shutil.copytree(source.folder, folder, dirs_exist_ok=True)
        order = {
            "home": str(home.path),
            "directory": str(folder),
            "command": command,
            "env": self._child_environment(workload, source, interpreter, home, scratch, address),
            "log_bytes": LOG_BYTES,
            "groups": [str(group) for group in groups],
            "launch_lock": lock,
        }
        run_shim(order, home.path, lock, workload.name)
        state = home.state()
        if state is None:
            raise LaunchFailed(f"{workload.name} was started and left no record. It was ended.")
        return state

    def _choose_scratch(self, home: Home) -> Path:
        """Short: sockets are made in it, whose paths may have 104 characters, and the home's may be long."""
        base = Path(self.environment.get("TMPDIR") or tempfile.gettempdir())
        return base / f"switchyard-{sha256(str(home.path).encode()).hexdigest()[:12]}"

    def _child_environment(
        self,
        workload: Workload,
        source: Source,
        interpreter: Path,
        home: Home,
        scratch: Path,
        address: str | None,
    ) -> dict[str, str]:
        """The machine's, the source's, the workload's, in this order of growing weight; then the address."""
        path = self.environment.get("PATH", os.defpath)
        env = {
            "LANG": "C.UTF-8",
            **self.environment,
            "PATH": f"{interpreter.parent}{os.pathsep}{path}",
            "TMPDIR": str(scratch),
            "PYTHONPATH": os.pathsep.join(map(str, source.import_path)),
            "PYTHONUNBUFFERED": "1",
            **workload.env,
            MARK: str(home.path),
        }
        if source.lock is not None:
            env["VIRTUAL_ENV"] = str(interpreter.parent.parent)
        if address is not None:
            env |= {"SERVE_PORT": address.rpartition(":")[2], "SERVE_HOST": HOST}
        return env


def make_private(folder: Path) -> None:
    """In a place where anybody can make folders: one that is somebody else's is not taken."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
        raise LaunchFailed(f"{folder} is somebody else's. Nothing was started.")


def choose_command(workload: Workload, source: Source, interpreter: Path) -> list[str]:
    command = source.description.command(workload.role)
    if command is None:
        part = "train" if workload.role is Role.TRAINER else "serve"
        raise LaunchFailed(
            f"Source {workload.image.reference!r} does not say how to `{part}`. Nothing was started.",
            hint=f"Add `{part} = [...]` to its {DESCRIPTION}.",
        )
    first, *rest = command
    return [str(interpreter) if first in PYTHONS else first, *rest]


def run_shim(order: dict[str, object], home: Path, lock: int, name: str) -> None:
    """Returns when the child runs. Raises LaunchFailed or StorageFull if it does not."""
    with (home / SHIM_LOG).open("wb") as errors:
        done = subprocess.run(
            [str(base_interpreter()), "-I", "-S", str(SHIM)],
            input=marshal.dumps(order),
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(lock,),
            env={},
            check=False,
        )
    answer, _, reason = done.stdout.decode("utf-8", "replace").partition(" ")
    if answer == "started":
        return
    number, _, text = reason.partition(" ")
    if answer == "failed" and number.isdigit() and int(number) in FULL:
        raise StorageFull(f"The disk is full. {name} was not started.")
    said = {"failed": text, "refused": reason}.get(answer) or read_errors(home)
    raise LaunchFailed(f"{name} cannot be started: {said}")


def read_errors(home: Path) -> str:
    return (home / SHIM_LOG).read_text("utf-8", "replace").strip()[-500:] or "its shim was killed"
