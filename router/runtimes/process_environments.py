"""Virtual environments for source folders, one for each lock file's content, shared by all that have it.

Making one takes up to minutes, so it is awaited, not waited for in a thread, and ends when its caller gives
up. Each is made in a folder of its own, which counts once it is marked as whole: an installer that outlived
its router writes where nobody looks. None that is whole is ever deleted, since only the registry knows which
versions may be rolled back to.
"""

import os
import re
import secrets
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from subprocess import DEVNULL

import anyio
from uv import find_uv_bin

from router.core.errors import LaunchFailed, StorageFull
from router.runtimes.process_folders import begin_making, clearing
from router.runtimes.process_index import follow_pip
from router.runtimes.process_threads import Threads

READY = ".ready"
PYTHON = Path("bin", "python")
BUILD_SECONDS = 1800
ERROR_CHARACTERS = 2000
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
FULL = ("No space left on device", "Disk quota exceeded")


def base_interpreter() -> Path:
    """The Python that environments are made from: ours, without our own packages."""
    return Path(getattr(sys, "_base_executable", sys.executable))


class Environments:
    """`environment` is what uv needs to find its index and certificates."""

    def __init__(self, home: Path, environment: Mapping[str, str], threads: Threads) -> None:
        self._home = home
        self._environment = dict(environment)
        self._threads = threads
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    def clear_unfinished(self) -> None:
        """Blocking."""
        with clearing(self._home) as may_clear:
            for folder in self._home.iterdir() if may_clear else ():
                if folder.is_dir() and not is_whole(folder):
                    shutil.rmtree(folder)

    async def interpreter(self, lock: Path | None) -> Path:
        """Python of the lock's environment, made first if need be. Raises LaunchFailed, StorageFull."""
        if lock is None:
            return base_interpreter()
        name = await self._threads.look(lambda: name_environment(lock.read_bytes()))
        async with self._turns[name]:
            made = await self._threads.look(lambda: self._find(name))
            return (made or await self._make(name, lock)) / PYTHON

    def _find(self, name: str) -> Path | None:
        return next((folder for folder in sorted(self._home.glob(f"{name}*")) if is_whole(folder)), None)

    async def _make(self, name: str, lock: Path) -> Path:
        folder = self._home / f"{name}.{secrets.token_hex(4)}"
        python = str(folder / PYTHON)
        environment = await self._threads.look(lambda: follow_pip(self._environment))
        # An installer holds it too, even if it outlives this router.
        keep = await self._threads.work(lambda: begin_making(self._home))
        try:
            uv = Uv(environment, keep)
            await uv.run("venv", "--no-project", "--python", str(base_interpreter()), str(folder))
            # Without bytecode: compiling all takes much longer than what the first start imports.
            await uv.run("pip", "sync", "--require-hashes", "--python", python, str(lock))
            await self._threads.work(lambda: mark_whole(folder))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._threads.work(lambda: shutil.rmtree(folder, ignore_errors=True))
            raise
        finally:
            os.close(keep)
        return folder


@dataclass(frozen=True)
class Uv:
    environment: Mapping[str, str]
    keep: int  # descriptor that lives as long as it

    async def run(self, *arguments: str) -> None:
        """Killed when the caller is cancelled. Raises LaunchFailed with its words, StorageFull."""
        try:
            with anyio.fail_after(BUILD_SECONDS):
                done = await anyio.run_process(
                    [find_uv_bin(), "--quiet", "--no-config", *arguments],
                    stdin=DEVNULL,
                    env=self.environment,
                    pass_fds=(self.keep,),
                    start_new_session=True,
                    check=False,
                )
        except TimeoutError as error:
            message = f"The packages of the source's lock were not installed within {BUILD_SECONDS} s."
            raise LaunchFailed(message) from error
        except OSError as error:
            raise LaunchFailed(f"The packages of the source's lock cannot be installed: {error}") from error
        if done.returncode != 0:
            said = CREDENTIALS.sub("", done.stderr.decode("utf-8", "replace").strip())[-ERROR_CHARACTERS:]
            if any(words in said for words in FULL):
                raise StorageFull("The disk is full. The packages of the source's lock were not installed.")
            raise LaunchFailed(f"The packages of the source's lock cannot be installed:\n{said}")


def name_environment(lock: bytes) -> str:
    """From the lock and the Python: after an upgrade of Python an old environment may not even start."""
    python = f"{sys.implementation.cache_tag}\0{base_interpreter()}\0{sys.version}"
    return sha256(python.encode() + b"\0" + lock).hexdigest()[:32]


def mark_whole(folder: Path) -> None:
    """A mark that is found after a power cut is believed: the packages must be on the disk before it."""
    os.sync()
    with (folder / READY).open("w") as mark:
        os.fsync(mark.fileno())


def is_whole(folder: Path) -> bool:
    """It was finished, and its Python, which is a link to the machine's, is still there."""
    return (folder / READY).exists() and (folder / PYTHON).exists()
