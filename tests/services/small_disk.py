"""A file system that is really full after so many bytes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fill(self) -> None:
        """Write until nothing more fits."""
        with (self.directory / "filler").open("ab", buffering=0) as filler:
            for size in (64 * 1024, 4096, 1):
                try:
                    while True:
                        filler.write(b"\0" * size)
                except OSError:
                    continue

    def give_back(self, size: int) -> None:
        """So many bytes of what `fill` took."""
        filler = self.directory / "filler"
        os.truncate(filler, filler.stat().st_size - size)

    def free(self) -> None:
        (self.directory / "filler").unlink()


def may_mount() -> bool:
    """Whether this process may mount a file system: root may, unless a container took the right away."""
    if os.geteuid() != 0 or not Path("/proc/self/status").exists():
        return False
    capabilities = next(
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    return bool(int(capabilities, 16) >> 21 & 1)  # CAP_SYS_ADMIN


@contextmanager
def mount_small_disk(directory: Path, size: int) -> Iterator[SmallDisk]:
    """`size` in bytes. In the end it goes away even if a failed test left a file of it open."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", directory], check=True)
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
