"""The end of a process that is not our child, heard from the kernel."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Protocol

LOOK_SECONDS = 0.2


class Watch(Protocol):
    """`ended` is called once, in the event loop, unless the watch is closed before."""

    def send(self, number: int) -> None:
        """Send a signal; a process that has ended gets none, and neither does another one with its pid."""

    def close(self) -> None: ...


def watch_process(pid: int, is_alive: Callable[[], bool], ended: Callable[[], None]) -> Watch | None:
    """None: it has ended. `is_alive` tells, by other means, whether the process that is meant lives."""
    try:
        watch: Watch = PidfdWatch(pid, ended) if hasattr(os, "pidfd_open") else Lookout(pid, is_alive, ended)
    except ProcessLookupError:
        return None
    # The pid may have been another's by the time that it was opened. If the process is alive now, it was not.
    if not is_alive():
        watch.close()
        return None
    return watch


class PidfdWatch:
    """Linux: a descriptor that stands for this very process and becomes readable at its end."""

    def __init__(self, pid: int, ended: Callable[[], None]) -> None:
        self._descriptor = os.pidfd_open(pid)
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._hear)

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _hear(self) -> None:
        self.close()
        self._ended()


class Lookout:
    """Elsewhere, where nothing tells the end of a process that is not a child: a look now and then."""

    def __init__(self, pid: int, is_alive: Callable[[], bool], ended: Callable[[], None]) -> None:
        self._pid = pid
        self._is_alive = is_alive
        self._ended = ended
        self._next = self._look_later()

    def send(self, number: int) -> None:
        if not self._is_alive():
            raise ProcessLookupError(self._pid)
        os.kill(self._pid, number)

    def close(self) -> None:
        self._next.cancel()

    def _look_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if self._is_alive():
            self._next = self._look_later()
        else:
            self._ended()
