"""Switches traffic again and again, and dies by SIGKILL at each step of it in turn.

`python -m tests.integration.proxies.slot_writer SLOTS`: a step is a call of `os` that changes or syncs files.
For step N, `SLOTS/N` is made with the old traffic, and a fork that switches it to the new one is killed just
before its Nth step. Prints the number of the first fork that came to its end.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.core.traffic import Traffic
from router.proxies.slot_directory import SlotDirectories
from tests.services.proxied import make_upstream

CHANGING = ("mkdir", "open", "write", "fsync", "symlink", "rename", "replace", "unlink", "rmdir")


OLD, NEW = (
    Traffic(active=make_upstream("127.0.0.1:20001", 1)),
    Traffic(active=make_upstream("127.0.0.1:20002", 2)),
)


def make_slots(root: Path) -> SlotDirectories:
    slots = SlotDirectories(root, "127.0.0.1:9001")
    slots.create(["default"])
    slots.write("default", OLD)
    return slots


def switch_until_killed(slots: SlotDirectories, fatal: int) -> None:
    steps = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return step

    for name in CHANGING:
        setattr(os, name, counted(getattr(os, name)))
    slots.write("default", NEW)
    os._exit(0)


def main(parent: Path) -> None:
    for step in itertools.count(1):
        slots = make_slots(parent / str(step))
        child = os.fork()
        if child == 0:
            switch_until_killed(slots, step)
        if os.waitpid(child, 0)[1] == 0:
            sys.stdout.write(str(step))
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
