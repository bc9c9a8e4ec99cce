"""From a workload to a running child: its home, its control groups, its environment, and the shim beside it.

Whatever fails on the way leaves nothing: no process, no group, no folder.
"""

import marshal
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from router.core.errors import LaunchFailed, StorageFull
from router.core.workload import Role, WorkloadState
from router.runtimes.base import Workload
from router.runtimes.process_cgroups import Cgroups
from router.runtimes.process_environments import base_interpreter
from router.runtimes.process_homes import SHIM_LOG, Home, Homes, Order
from router.runtimes.process_leftovers import MARK, end_leftovers
from router.runtimes.process_ports import HOST, Ports
from router.runtimes.process_removal import bury, is_ours
from router.runtimes.process_sources import DESCRIPTION, Source
from router.runtimes.process_threads import FULL

SHIM = Path(__file__).with_name("process_shim.py")
LOG_BYTES = 4 * 1024 * 1024  # of each of the two log files that a workload has at most
ERROR_CHARACTERS = 500
PYTHONS = {"python", "python3"}


class Launcher:
    """Blocking. `environment` is what every child inherits."""

    def __init__(self, homes: Homes, cgroups: Cgroups, ports: Ports, environment: Mapping[str, str]) -> None:
        self._homes = homes
        self._cgroups = cgroups
        self._ports = ports
        self._environment = dict(environment)

    def launch(self, workload: Workload, source: Source, interpreter: Path) -> tuple[WorkloadState, bool]:
        """Its state, and whether it was this call that started it."""
        command = choose_command(workload, source, interpreter)
        home = self._homes.of(workload.owner)
        with home.turn() as lock:
            state = home.state()
            if state is not None:
                return state, False
            try:
                self._start(home, lock, workload, source, command, interpreter)
            except BaseException:
                end_leftovers(home.path, self._cgroups.paths(workload.owner))
                home.await_shim()
                bury(home)
                raise
            state = home.state()
            assert state is not None  # the shim says that it has started once that is written
            return state, True

    def _start(
        self,
        home: Home,
        lock: int,
        workload: Workload,
        source: Source,
        command: list[str],
        interpreter: Path,
    ) -> None:
        address = self._choose_address(workload) if workload.role is Role.SERVER else None
        scratch = self._choose_scratch(home)
        home.write_order(
            Order(
                owner=workload.owner,
                name=workload.name,
                role=workload.role,
                digest=source.digest,
                address=address,
                scratch=str(scratch),
                groups=tuple(map(str, self._cgroups.paths(workload.owner))),
            )
        )
        groups = self._cgroups.create(workload.owner, workload.resources)
        scratch.mkdir(mode=0o700, exist_ok=True)
        if not is_ours(scratch):
            raise LaunchFailed(f"{scratch} is somebody else's. Nothing was started.")
        # A copy of its own: what it writes beside its source must not change what others run.
        work = home.path / "work"
        copy_folder(source.folder, work)
        order = {
            "home": str(home.path),
            "directory": str(work),
            "command": command,
            "env": self._make_environment(workload, source, interpreter, home, scratch, address),
            "log_bytes": LOG_BYTES,
            "groups": [str(group) for group in groups],
            "launch_lock": lock,
        }
        start_shim(order, home, workload.name)

    def _choose_address(self, workload: Workload) -> str:
        """Not one of a server that was launched and does not listen yet, either."""
        taken = {state.address for state in self._homes.states() if state.running and state.address}
        return self._ports.reserve(workload.avoid_addresses | taken)

    def _choose_scratch(self, home: Home) -> Path:
        """Short: sockets are made in it, whose paths may have 104 characters, and the home's may be long."""
        base = Path(self._environment.get("TMPDIR") or tempfile.gettempdir())
        return base / f"switchyard-{sha256(str(home.path).encode()).hexdigest()[:12]}"

    def _make_environment(
        self,
        workload: Workload,
        source: Source,
        interpreter: Path,
        home: Home,
        scratch: Path,
        address: str | None,
    ) -> dict[str, str]:
        """The machine's, the source's, the workload's, in this order of growing weight; then the address."""
        path = self._environment.get("PATH", os.defpath)
        env = {
            "LANG": "C.UTF-8",
            **self._environment,
            "PATH": f"{interpreter.parent}{os.pathsep}{path}",
            "TMPDIR": str(scratch),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            **workload.env,
            MARK: str(home.path),
        }
        if source.import_path:
            env["PYTHONPATH"] = os.pathsep.join(map(str, source.import_path))
        if source.lock is not None:
            env["VIRTUAL_ENV"] = str(interpreter.parent.parent)
        if address is not None:
            env |= {"SERVE_PORT": address.rpartition(":")[2], "SERVE_HOST": HOST}
        return env


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


def copy_folder(source: Path, target: Path) -> None:
    """`shutil.copytree` says of a full disk only that something failed."""
    for directory, _, names in os.walk(source):
        place = target / Path(directory).relative_to(source)
        place.mkdir(exist_ok=True)
        for name in names:
            shutil.copy2(Path(directory) / name, place / name)


def start_shim(order: dict[str, object], home: Home, name: str) -> None:
    """Returns when the child runs. Raises LaunchFailed with the reason if it does not."""
    lock = order["launch_lock"]
    assert isinstance(lock, int)
    with (home.path / SHIM_LOG).open("wb") as errors:
        done = subprocess.run(
            [str(base_interpreter()), "-I", "-S", str(SHIM)],
            input=marshal.dumps(order),
            stdout=subprocess.PIPE,
            stderr=errors,
            env={},  # the router's secrets are none of its business
            pass_fds=(lock,),
            check=False,
        )
    kind, _, said = done.stdout.decode("utf-8", "replace").partition(" ")
    match kind:
        case "started":
            return
        case "refused":
            reason = said
        case "failed":
            number, _, reason = said.partition(" ")
            if number.isdigit() and int(number) in FULL:
                raise StorageFull(f"The disk is full. {name} was not started.")
        case _:
            reason = (home.path / SHIM_LOG).read_text(errors="replace")[-ERROR_CHARACTERS:] or "no answer"
    raise LaunchFailed(f"{name} cannot be started: {reason.strip()}")
