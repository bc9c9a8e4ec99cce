"""Time that passes only when a test says so."""

import asyncio

import anyio
from anyio.lowlevel import checkpoint

# A cancellation travels through callbacks of the loop, which no task shows.
QUIET_ROUNDS = 10


class FakeClock:
    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await checkpoint()
            return
        sleeper = (self._now + seconds, anyio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def settle(self) -> None:
        """Let every task run until it waits for time, for an event or for a thread.

        As anyio's `wait_all_tasks_blocked`, which looks only every 100 ms.
        """
        quiet = 0
        while quiet < QUIET_ROUNDS:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            quiet = 0 if any(_can_run(task) for task in others) else quiet + 1
            await checkpoint()

    async def advance(self, seconds: float) -> None:
        """Sleepers wake in the order of their times, each seeing its own time."""
        end = self._now + seconds
        await self.settle()
        while due := sorted(at for at, _ in self._sleepers if at <= end):
            self._now = max(self._now, due[0])
            for at, event in list(self._sleepers):
                if at <= self._now:
                    event.set()
            await self.settle()
        self._now = end
        await self.settle()


def _can_run(task: "asyncio.Task[object]") -> bool:
    waiting_for: asyncio.Future[object] | None = getattr(task, "_fut_waiter", None)
    return waiting_for is None or waiting_for.done()
