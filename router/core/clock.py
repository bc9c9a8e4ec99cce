"""Time as a dependency, so that no pure test waits for it and no jump of the wall clock ends a deadline."""

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    def now(self) -> float:
        """Epoch seconds."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """Wall time read once at the start and carried on by the monotonic clock.

    A wall clock that is set forward or back while the router runs moves no deadline.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
