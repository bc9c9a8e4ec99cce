"""One listing of the workloads for all who ask at the same time: a hundred endpoints cost what one does."""

import anyio

from router.core.workload import WorkloadState
from router.runtimes.base import Runtime


class SharedListing:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._one_at_a_time = anyio.Lock()
        self._begun = self._answered = 0  # numbers of listings
        self._latest: dict[str, WorkloadState] = {}

    async def read(self) -> dict[str, WorkloadState]:
        """By owner, from a listing that was begun after this call: what is missing has really ended."""
        wanted = self._begun + 1
        async with self._one_at_a_time:
            if self._answered < wanted:
                self._begun = number = self._begun + 1
                self._latest = {state.owner: state for state in await self._runtime.list_owned()}
                self._answered = number
            return self._latest
