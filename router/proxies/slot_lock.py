"""At most one router writes a slot directory; a second one waits as a standby.

The kernel drops the lock when its holder dies, however it dies, so there is nothing to expire or clean up.
"""

import fcntl
import os
from pathlib import Path

from router.proxies.durable import translate_storage_errors


class SlotLock:
    """Of the directory itself: taking it needs no space on the disk, and children do not inherit it."""

    def __init__(self, slots: Path) -> None:
        self._slots = slots
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def try_acquire(self) -> bool:
        """Returns at once: whether this router is the active one."""
        if self._descriptor is not None:
            return True
        with translate_storage_errors(f"locking {self._slots}"):
            self._slots.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._slots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
