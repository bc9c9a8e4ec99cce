"""Virtual environments for source folders, one for each lock's content, shared by all that have it."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import uv

from router.core.errors import LaunchFailed
from router.runtimes.process_index import follow_pip

READY = ".ready"
BUILD_SECONDS = 1800
ERROR_CHARACTERS = 2000


def base_interpreter() -> Path:
    """The Python that environments are made from: ours, without our own packages."""
    return Path(getattr(sys, "_base_executable", sys.executable))


class Environments:
    """Blocking: call it in a thread. `environment` is what uv needs to find its index and certificates."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = dict(environment)

    def interpreter(self, lock: Path | None) -> Path:
        """Python of the lock's environment, made first if need be. Raises LaunchFailed."""
        if lock is None:
            return base_interpreter()
        folder = self._home / name_environment(lock.read_bytes())
        if not (folder / READY).exists():
            self._home.mkdir(parents=True, exist_ok=True)
            with (self._home / f"{folder.name}.lock").open("w") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                if not (folder / READY).exists():
                    self._build(folder, lock)
        return folder / "bin" / "python"

    def _build(self, folder: Path, lock: Path) -> None:
        """In place, since an environment cannot be moved; it counts only once the mark is there."""
        python, interpreter = str(base_interpreter()), str(folder / "bin" / "python")
        self._run_uv("venv", "--clear", "--no-project", "--python", python, str(folder))
        # With bytecode: without it, the first start of each program would compile all that it imports.
        options = ("--require-hashes", "--compile-bytecode", "--python", interpreter)
        self._run_uv("pip", "sync", *options, str(lock))
        os.sync()  # a mark found after a power cut is believed, so the packages must be on the disk before it
        with (folder / READY).open("w") as mark:
            os.fsync(mark.fileno())

    def _run_uv(self, *arguments: str) -> None:
        command = [uv.find_uv_bin(), "--quiet", "--no-config", *arguments]
        try:
            subprocess.run(
                command,
                env=follow_pip(self._environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()[-ERROR_CHARACTERS:]
            raise LaunchFailed(f"The packages of the source's lock cannot be installed:\n{said}") from error
        except subprocess.TimeoutExpired as error:
            raise LaunchFailed(
                f"The packages of the source's lock were not installed within {BUILD_SECONDS} s."
            ) from error


def name_environment(lock: bytes) -> str:
    """From the lock and the Python: after an upgrade of Python an old environment may not even start."""
    python = f"{sys.implementation.cache_tag}\0{base_interpreter()}\0{sys.version}"
    return sha256(python.encode() + b"\0" + lock).hexdigest()[:32]
