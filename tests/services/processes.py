"""A child process in a group of its own, with its log in a file: what every started service is made of."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.02


class ServiceProcess:
    """May be started again after it has ended; the log goes on in the same file."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = log

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the service has not been started")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, is_ready: Callable[[], bool], deadline_seconds: float = 90) -> None:
        """Returns when it is ready; raises with the log's end if it has ended or the deadline has passed."""
        if self.running:
            raise RuntimeError(f"{self._command[0]} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*end_with_us(), *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + deadline_seconds
        while not is_ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command[0]} ended while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command[0]} is not ready in time:\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, grace_seconds: float = 20) -> None:
        """SIGTERM to the leader, which ends its own children; SIGKILL for what is left after the grace."""
        if self._process is None:
            return
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        self.kill()

    def wait(self, deadline_seconds: float) -> int:
        """The exit status, a signal's number negative; raises subprocess.TimeoutExpired."""
        if self._process is None:
            raise RuntimeError("the service has not been started")
        return self._process.wait(deadline_seconds)

    def kill(self) -> None:
        """SIGKILL to the whole group, as a machine that runs out of memory would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self, size: int = 4000) -> str:
        return self.log.read_bytes()[-size:].decode(errors="replace") if self.log.exists() else ""


def end_with_us() -> list[str]:
    """A prefix to a command that leaves nothing behind a test run that is killed, where the system can.

    The kernel watches the thread that starts the process, so that has to be the one that lasts.
    """
    lasting = threading.current_thread() is threading.main_thread()
    return ["setpriv", "--pdeathsig=TERM"] if lasting and shutil.which("setpriv") else []
