"""Several waits at once, of which the first to end decides."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from router.core.clock import Clock

T = TypeVar("T")


async def race(*functions: Callable[[], Awaitable[T]]) -> T:
    """The result, or the plain error, of the first to end; the others are cancelled."""
    results: list[T] = []
    errors: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def run(function: Callable[[], Awaitable[T]]) -> None:
            try:
                results.append(await function())
            except Exception as error:  # noqa: BLE001 - raised again below
                errors.append(error)
            group.cancel_scope.cancel()

        for function in functions:
            group.start_soon(run, function)
    if errors:
        raise errors[0]
    return results[0]


async def wait_any(clock: Clock, seconds: float | None, *events: anyio.Event) -> None:
    """Return when one of the events is set, or after so many seconds (None: only the events)."""
    waits: list[Callable[[], Awaitable[object]]] = [event.wait for event in events]
    if seconds is not None:
        waits.append(partial(clock.sleep, max(0.0, seconds)))
    await race(*waits)
