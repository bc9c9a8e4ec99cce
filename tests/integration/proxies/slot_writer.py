"""Switches traffic in a process of its own, and dies by SIGKILL before its Nth look at the disk's contents.

`python -m tests.integration.proxies.slot_writer SLOTS N VERSION`: every call of `os` that changes or syncs a
file counts as a step. Exits with 0 if there were fewer steps.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.core.traffic import Traffic, Upstream
from router.proxies.slot_directory import SlotDirectories

CHANGING = ("mkdir", "open", "write", "fsync", "symlink", "rename", "replace", "unlink", "rmdir")


def upstream(version: int) -> Upstream:
    return Upstream(
        address=f"127.0.0.1:{20_000 + version}",
        server_id=f"srv_{version}",
        model_name="Iris",
        model_version=version,
        serve_image="image",
        serve_digest="sha256:0",
    )


def main(slots: Path, fatal: int, version: int) -> None:
    directories = SlotDirectories(slots, "127.0.0.1:9001")
    directories.read("default")
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
    directories.write("default", Traffic(active=upstream(version)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
