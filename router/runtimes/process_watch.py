"""A hold on a living shim: to hear of its end from the kernel, and to signal it and no other process.

A pid may belong to another process by the time it is used, so a hold counts only if the shim's lock was still
taken after it was got. Linux has descriptors for processes; where the system or this build of Python has
none, a thread waits for the lock that the shim holds for as long as it lives.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from router.runtimes.process_homes import Home


class Hold(Protocol):
    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` in the running event loop when the shim has ended."""

    def signal(self, number: int) -> None:
        """Nothing happens if it has ended."""

    def release(self) -> None: ...


class DescriptorHold:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def listen(self, heard: Callable[[], None]) -> None:
        def reap_and_tell() -> None:
            # Orphans fall to init, which reaps them. In a container that may be this very process.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOHANG)
            heard()

        asyncio.get_running_loop().add_reader(self._descriptor, reap_and_tell)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def release(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)


class LockHold:
    def __init__(self, home: Home, pid: int) -> None:
        self._home = home
        self._pid = pid
        self._released = False

    def listen(self, heard: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not self._released:
                heard()

        def wait() -> None:
            self._home.await_shim()
            with suppress(RuntimeError):  # the loop is closed, so nobody listens any more
                loop.call_soon_threadsafe(tell)

        threading.Thread(target=wait, name=f"end of {self._home.path.name}", daemon=True).start()

    def signal(self, number: int) -> None:
        if self._home.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def release(self) -> None:
        self._released = True


def take_hold(home: Home) -> Hold | None:
    """Blocking. None: no shim lives there."""
    pid = home.shim()
    if pid is None:
        return None
    if not hasattr(os, "pidfd_open"):
        return LockHold(home, pid)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if home.is_alive():
        return DescriptorHold(descriptor)
    os.close(descriptor)
    return None


class Watch:
    """One hold for each workload that runs. All in the event loop, but for `take_hold`."""

    def __init__(self, heard: Callable[[str, asyncio.Event], None]) -> None:
        """`heard` gets the owner of what has ended, and the event to set once that is dealt with."""
        self._heard = heard
        self._holds: dict[str, tuple[Hold, asyncio.Event]] = {}

    def add(self, owner: str, hold: Hold) -> None:
        if owner in self._holds:  # somebody else was here while we took hold
            hold.release()
            return
        self._holds[owner] = (hold, asyncio.Event())
        hold.listen(lambda: self._hear(owner))

    def __contains__(self, owner: str) -> bool:
        return owner in self._holds

    def end_of(self, owner: str) -> asyncio.Event | None:
        held = self._holds.get(owner)
        return held[1] if held else None

    def signal(self, owner: str, number: int) -> None:
        if owner in self._holds:
            self._holds[owner][0].signal(number)

    def close(self) -> None:
        for hold, _ in self._holds.values():
            hold.release()
        self._holds.clear()

    def _hear(self, owner: str) -> None:
        hold, ended = self._holds.pop(owner)
        hold.release()
        self._heard(owner, ended)
