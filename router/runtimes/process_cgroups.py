"""Limits of processes by the kernel's control groups, version 2 or the older hierarchies.

Whether the machine allows one is found out by making it: rights, mounts and delegation differ more than any
list of them. Under version 2 a group is one directory; under version 1 one for each controller, to which a
machine that has both adds one of version 2, which can be killed as a whole.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from router.core.errors import UnsupportedSetting
from router.core.specs import Resources

MOUNT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
CONTROLLERS = {"cpus": "cpu", "memory": "memory", "pids": "pids"}  # setting -> controller
CPU_PERIOD_US = 100_000
LEAST_QUOTA_US = 1_000  # the kernel takes no less


class Cgroups:
    """Blocking, but only as the kernel's files are. `name` tells the groups of one router from another's."""

    def __init__(self, name: str, mount: Path = MOUNT, own_groups: Path = OWN_GROUPS) -> None:
        self._name = name
        own = read_own_groups(own_groups)
        self._old = {
            controller: mount / controller / own[controller].lstrip("/")
            for controller in CONTROLLERS.values()
            if controller in own
        }
        unified = mount if (mount / "cgroup.controllers").exists() else mount / "unified"
        # Beside our own group or below it: which of them may have groups for processes, only trying tells.
        home = unified / own.get("", "/").lstrip("/")
        self._unified = list(dict.fromkeys([home, home.parent if home != unified else home]))

    def refuse_unsupported(self, resources: Resources) -> None:
        """Raises UnsupportedSetting naming the first setting that cannot be honoured, and why."""
        if resources.required and not resources.empty:
            owner = f"check-{secrets.token_hex(4)}"
            try:
                self.create(owner, resources)
            finally:
                self.remove(self.paths(owner))

    def create(self, owner: str, resources: Resources) -> list[Path]:
        """The workload's groups with their limits, the one that can be killed as a whole first.

        What is not required and not possible is left out; otherwise raises UnsupportedSetting.
        """
        groups: list[Path] = []
        for setting, controller in CONTROLLERS.items():
            if getattr(resources, setting) is None:
                continue
            try:
                group = self._create_limited(owner, setting, controller, resources)
            except OSError as error:
                if resources.required:
                    self.remove(self.paths(owner))
                    raise UnsupportedSetting(
                        f"resources.{setting} cannot be honoured: no control group with it can be made on "
                        f"this machine ({error}). Nothing was started.",
                        hint="Give the router rights to a cgroup, or say `resources: {required: false}`.",
                    ) from error
            else:
                groups.append(group)
        whole = self._create_whole(owner)
        return list(dict.fromkeys([*([whole] if whole else []), *groups]))

    def _create_whole(self, owner: str) -> Path | None:
        """A group of version 2, which needs no limit: any directory that we may write in will do."""
        for base in self._unified:
            group = base / f"{self._name}-{owner}"
            if group.exists():
                return group
        for base in self._unified:
            group = base / f"{self._name}-{owner}"
            with suppress(OSError):
                group.mkdir()
                return group
        return None

    def _create_limited(self, owner: str, setting: str, controller: str, resources: Resources) -> Path:
        name = f"{self._name}-{owner}"
        if controller in self._old:
            group = self._old[controller] / name
            group.mkdir(exist_ok=True)
            write_limits(group, list_limits_old(setting, resources))
            return group
        group = self._choose_base(controller) / name
        group.mkdir(exist_ok=True)
        write_limits(group, list_limits(setting, resources))
        return group

    def _choose_base(self, controller: str) -> Path:
        """A group of version 2 that passes the controller on: it must not hold a process itself."""
        refusal = OSError("there is no hierarchy that has it")
        for base in self._unified:
            passed_on = base / "cgroup.subtree_control"
            try:
                if controller not in passed_on.read_text().split():
                    passed_on.write_text(f"+{controller}")
            except OSError as error:
                refusal = error
            else:
                return base
        raise refusal

    def paths(self, owner: str) -> list[Path]:
        """Wherever a group of this owner can be."""
        return [base / f"{self._name}-{owner}" for base in (*self._old.values(), *self._unified)]

    @staticmethod
    def remove(groups: Iterable[Path]) -> None:
        """Empty groups go; one that still has a process stays, for the kernel keeps it."""
        for group in groups:
            with suppress(OSError):
                group.rmdir()

    @staticmethod
    def list_members(groups: Iterable[Path]) -> Iterator[int]:
        for group in groups:
            with suppress(OSError):
                yield from map(int, (group / "cgroup.procs").read_text().split())


def read_memory(groups: Iterable[Path]) -> int | None:
    """Bytes; None where nothing counts them."""
    for group in groups:
        for file in ("memory.current", "memory.usage_in_bytes"):
            with suppress(OSError, ValueError):
                return int((group / file).read_text())
    return None


def write_limits(group: Path, limits: list[tuple[str, str]]) -> None:
    for file, text in limits:
        # A limit of swap exists only where swap is counted; opening must not create anything in a group.
        if "sw" not in file or (group / file).exists():
            (group / file).write_text(text)


def list_limits(setting: str, resources: Resources) -> list[tuple[str, str]]:
    """Files of version 2 to write, in order. Memory is limited without swap, or it would not be a limit."""
    if setting == "cpus":
        return [("cpu.max", f"{count_quota(resources)} {CPU_PERIOD_US}")]
    if setting == "memory":
        return [("memory.max", str(resources.memory)), ("memory.swap.max", "0")]
    return [("pids.max", str(resources.pids))]


def list_limits_old(setting: str, resources: Resources) -> list[tuple[str, str]]:
    """The same of version 1, whose limit of swap includes the memory."""
    if setting == "cpus":
        return [("cpu.cfs_period_us", str(CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(count_quota(resources)))]
    if setting == "memory":
        text = str(resources.memory)
        return [("memory.limit_in_bytes", text), ("memory.memsw.limit_in_bytes", text)]
    return [("pids.max", str(resources.pids))]


def count_quota(resources: Resources) -> int:
    return max(LEAST_QUOTA_US, round((resources.cpus or 0) * CPU_PERIOD_US))


def read_own_groups(path: Path) -> dict[str, str]:
    """Controller (empty: version 2) -> our own group in its hierarchy. Empty where there are no groups."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, own = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), own)
    return groups
