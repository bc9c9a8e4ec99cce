"""Slow work beside a loop that must not wait for it: whoever watches over servers has to go on looking."""

from collections.abc import Awaitable, Callable

import structlog
from anyio.abc import TaskGroup

from router.core.errors import StaleRecord, SwitchyardError

log = structlog.get_logger()


class Chores:
    """Each is under way at most once. One that fails is logged; the loop will find it undone."""

    def __init__(self) -> None:
        self._under_way: set[str] = set()

    def start(self, group: TaskGroup, name: str, act: Callable[[], Awaitable[None]]) -> None:
        """Unless one of this name is under way."""
        if name not in self._under_way:
            self._under_way.add(name)
            group.start_soon(self._run, name, act)

    def is_under_way(self, name: str) -> bool:
        return name in self._under_way

    async def _run(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except StaleRecord:
            log.debug("somebody else was first", chore=name)
        except SwitchyardError as error:
            log.warning("left for later", chore=name, error=error.message)
        except Exception:
            log.exception("a chore broke", chore=name)
        finally:
            self._under_way.discard(name)
