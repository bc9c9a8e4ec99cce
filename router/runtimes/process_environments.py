"""Virtual environments for source folders, one for each lock file's content, shared by all that have it."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import uv

from router.core.errors import LaunchFailed

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
        try:
            content = lock.read_bytes()
        except OSError as error:
            raise LaunchFailed(
                f"the lock {lock.name} of the source folder cannot be read: {error}"
            ) from error
        folder = self._home / sha256(content).hexdigest()[:32]
        self._home.mkdir(parents=True, exist_ok=True)
        with (self._home / f"{folder.name}.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not (folder / READY).exists():
                self._build(folder, lock)
        return folder / "bin" / "python"

    def _build(self, folder: Path, lock: Path) -> None:
        """In place, since an environment cannot be moved; it counts only once the mark is there."""
        python = str(base_interpreter())
        self._run_uv("venv", "--clear", "--no-project", "--python", python, str(folder), lock=lock)
        interpreter = str(folder / "bin" / "python")
        self._run_uv("pip", "sync", "--require-hashes", "--python", interpreter, str(lock), lock=lock)
        (folder / READY).touch()
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _run_uv(self, *arguments: str, lock: Path) -> None:
        command = [uv.find_uv_bin(), "--quiet", *arguments]
        try:
            subprocess.run(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.strip()[-ERROR_CHARACTERS:]
            raise LaunchFailed(f"the packages of {lock.name} cannot be installed:\n{said}") from error
        except (subprocess.TimeoutExpired, OSError) as error:
            raise LaunchFailed(f"the packages of {lock.name} cannot be installed: {error}") from error
