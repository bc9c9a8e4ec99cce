"""Limits of processes by the kernel's control groups, version 2 or the older hierarchies.

Whether the machine allows them is found out by making one, since rights, mounts and delegation differ more
than any list of them. A group is one directory under version 2, one for each controller under version 1.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from router.core.errors import LaunchFailed, UnsupportedSetting
from router.core.specs import Resources

MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = {"cpus": "cpu", "memory": "memory", "pids": "pids"}  # setting -> controller
CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """Where groups for one controller can be made."""

    parent: Path
    unified: bool


class Cgroups:
    """Blocking, but only as the kernel's files are. `name` tells the groups of one router from another's."""

    def __init__(self, name: str, mount: Path = MOUNT) -> None:
        self._name = name
        self._hierarchies = find_hierarchies(mount, name)

    def unsupported(self, resources: Resources) -> list[str]:
        """The settings among these that this machine cannot honour."""
        return [
            setting
            for setting, controller in CONTROLLERS.items()
            if getattr(resources, setting) is not None and controller not in self._hierarchies
        ]

    def refuse_unsupported(self, resources: Resources) -> None:
        if resources.required and (settings := self.unsupported(resources)):
            named = ", ".join(f"resources.{setting}" for setting in settings)
            raise UnsupportedSetting(
                f"{named} cannot be honoured: this process may not make control groups on this machine",
                hint="run the router with rights to a cgroup, or say `resources: {required: false}`",
            )

    def create(self, owner: str, resources: Resources) -> list[Path]:
        """The workload's groups with their limits. What is not required and not possible is left out."""
        wanted = [
            (setting, controller)
            for setting, controller in CONTROLLERS.items()
            if getattr(resources, setting) is not None and controller in self._hierarchies
        ]
        groups: list[Path] = []
        try:
            for setting, controller in wanted:
                hierarchy = self._hierarchies[controller]
                group = hierarchy.parent / owner
                group.mkdir(exist_ok=True)
                if group not in groups:
                    groups.append(group)
                for file, text in limits(setting, resources, hierarchy.unified):
                    (group / file).write_text(text)
        except OSError as error:
            self.remove(owner)
            raise LaunchFailed(f"a control group with {setting!r} cannot be made: {error}") from error
        return groups

    def remove(self, owner: str) -> None:
        """Empty groups go; one that still has a process stays, and is tried again by the next removal."""
        for hierarchy in set(self._hierarchies.values()):
            with suppress(OSError):
                (hierarchy.parent / owner).rmdir()

    def memory_bytes(self, groups: Iterable[Path]) -> int | None:
        for group in groups:
            for file in ("memory.current", "memory.usage_in_bytes"):
                with suppress(OSError, ValueError):
                    return int((group / file).read_text())
        return None


def limits(setting: str, resources: Resources, unified: bool) -> list[tuple[str, str]]:
    """Files to write, in order. Memory is limited without swap, or it would not be a limit."""
    if setting == "pids":
        return [("pids.max", str(resources.pids))]
    if setting == "memory":
        text = str(resources.memory)
        return [("memory.max", text)] if unified else [("memory.limit_in_bytes", text)]
    quota = max(1000, round((resources.cpus or 1) * CPU_PERIOD_US))
    if unified:
        return [("cpu.max", f"{quota} {CPU_PERIOD_US}")]
    return [("cpu.cfs_period_us", str(CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]


def find_hierarchies(mount: Path, name: str) -> dict[str, Hierarchy]:
    """Controller -> where groups can be made for it, found by making the parent of all of ours."""
    own = read_own_groups()
    found: dict[str, Hierarchy] = {}
    if (mount / "cgroup.controllers").exists():
        return find_unified(mount, own.get("", "/"), name)
    for controller in CONTROLLERS.values():
        if controller not in own:
            continue
        parent = mount / controller / own[controller].lstrip("/") / name
        with suppress(OSError):
            parent.mkdir(exist_ok=True)
            found[controller] = Hierarchy(parent, unified=False)
    return found


def find_unified(mount: Path, own: str, name: str) -> dict[str, Hierarchy]:
    """A group can pass controllers on only if it holds no process itself: beside ours, or below the root."""
    home = mount / own.lstrip("/")
    for base in (home, home.parent):
        parent = base / name
        try:
            parent.mkdir(exist_ok=True)
        except OSError:
            continue
        offered: set[str] = set()
        for controller in CONTROLLERS.values():
            with suppress(OSError):
                (base / "cgroup.subtree_control").write_text(f"+{controller}")
            with suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
                offered.add(controller)
        if offered:
            return {controller: Hierarchy(parent, unified=True) for controller in offered}
        with suppress(OSError):
            parent.rmdir()
    return {}


def read_own_groups() -> dict[str, str]:
    """Controller (empty: version 2) -> our own group in its hierarchy. Empty where there are no cgroups."""
    try:
        lines = Path(f"/proc/{os.getpid()}/cgroup").read_text().splitlines()
    except OSError:
        return {}
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    return groups
