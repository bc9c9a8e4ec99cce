"""Blocking calls in threads, with their errors translated at this one edge.

Launches and removals wait for disks, locks and children; a look at a workload does not. Each kind has threads
of its own, so that however much is being launched, nobody waits for an answer about what runs.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from router.core.errors import RuntimeUnavailable, StorageFull

LOOKING = 8
WORKING = 8
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")


class Threads:
    """Both raise StorageFull or RuntimeUnavailable for what the operating system refuses."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._looking = CapacityLimiter(LOOKING)
        self._working = CapacityLimiter(WORKING)

    async def look(self, function: Callable[[], T]) -> T:
        """For what reads a few small files."""
        with translated_errors(self._state):
            return await to_thread.run_sync(function, limiter=self._looking)

    async def work(self, function: Callable[[], T]) -> T:
        """For what may take a while."""
        with translated_errors(self._state):
            return await to_thread.run_sync(function, limiter=self._working)


@contextmanager
def translated_errors(state: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"The disk of {state} is full. Nothing was started.") from error
        raise RuntimeUnavailable(f"Processes cannot be looked after: {error}.") from error
