"""Ends what carries our label and belongs to no living record: the leftovers of a crash in a bad moment."""

import structlog

from router.core.errors import NotFound, SwitchyardError
from router.core.models import Server, Training
from router.core.workload import Role, WorkloadState
from router.engine.context import Context

log = structlog.get_logger()


class Sweeper:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.sweep()
            except SwitchyardError as error:
                log.warning("a sweep failed", error=error.message)
            await self._context.clock.sleep(self._context.policy.sweep_seconds)

    async def sweep(self) -> None:
        """Records are written before launches, so a workload without a living record is nobody's."""
        runtime = self._context.runtime
        for workload in await runtime.list_owned():
            if await self._is_wanted(workload):
                continue
            log.warning("removing a leftover", owner=workload.owner, name=workload.name)
            try:
                await runtime.stop(workload.owner, self._context.policy.stop_grace)
                await runtime.remove(workload.owner)
            except SwitchyardError as error:  # one that cannot be killed does not keep the others
                log.warning("a leftover stays", owner=workload.owner, error=error.message)

    async def _is_wanted(self, workload: WorkloadState) -> bool:
        store = self._context.store
        try:
            if workload.role is Role.TRAINER:
                return not (await store.get(Training, workload.owner)).phase.terminal
            if not (await store.get(Server, workload.owner)).phase.terminal:
                return True
        except NotFound:
            log.warning("no record of this workload", owner=workload.owner)
        return await self._is_named(workload.owner)

    async def _is_named(self, owner: str) -> bool:
        """Traffic that names a server that the store does not know is right, and the store is wrong."""
        proxy = self._context.proxy
        return any([(await proxy.read_traffic(name)).names(owner) for name in await proxy.endpoints()])
