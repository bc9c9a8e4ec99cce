"""What is left of a workload whose shim was killed: found by its marks, and ended.

A shim that lives ends its child's whole family itself. One that was killed cannot: the kernel ends the child
with it, but not the child's own children. A pid says nothing by then, so they are known by the control
groups that they are in, and by a variable of their environment that names the workload's home.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from router.core.errors import RuntimeUnavailable
from router.runtimes.process_cgroups import Cgroups

MARK = "SWITCHYARD_WORKLOAD"
ROUNDS = 200
ROUND_SECONDS = 0.05  # not longer: one that only waits to be reaped by somebody else would be waited for


def end_leftovers(home: Path, groups: Iterable[Path]) -> None:
    """SIGKILL, until nothing new has been born meanwhile. Raises RuntimeUnavailable if they do not go."""
    groups = list(groups)
    for _ in range(ROUNDS):
        found = find_leftovers(home, groups)
        if not found:
            Cgroups.remove(groups)
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=ROUND_SECONDS)
    raise RuntimeUnavailable(f"Processes of {home.name} do not end: {[process.pid for process in found]}.")


def find_leftovers(home: Path, groups: Iterable[Path]) -> list[psutil.Process]:
    found = {}
    for pid in Cgroups.list_members(groups):
        with suppress(psutil.NoSuchProcess):
            found[pid] = psutil.Process(pid)
    for process in psutil.process_iter():
        # Others' processes do not show their environment; those that just end have none.
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(home):
                found[process.pid] = process
    return [process for process in found.values() if is_running(process)]


def find_strays(folder: Path) -> set[str]:
    """Owners of processes whose home in this folder is gone, so that no record names them any more."""
    owners = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            home = Path(process.environ().get(MARK, ""))
            if home.parent == folder and not home.exists():
                owners.add(home.name)
    return owners


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
