"""Many attempts at the same thing at once, and what became of each."""

from collections.abc import Awaitable, Callable, Sequence

import anyio

from router.core.errors import SwitchyardError


async def race(attempts: Sequence[Callable[[], Awaitable[None]]]) -> list[SwitchyardError | None]:
    """All at once; what each raised, or None, in their order."""
    outcomes: list[SwitchyardError | None] = [None] * len(attempts)

    async def run(number: int, attempt: Callable[[], Awaitable[None]]) -> None:
        try:
            await attempt()
        except SwitchyardError as error:
            outcomes[number] = error

    async with anyio.create_task_group() as group:
        for number, attempt in enumerate(attempts):
            group.start_soon(run, number, attempt)
    return outcomes
