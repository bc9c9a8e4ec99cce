"""Adds and removes endpoints, and keeps the watches of each for as long as it is there.

Both are recorded before anything is done. What a killed router had recorded, the next one carries out: an
open endpoint gets what it lacks when the router starts, a closing one is taken apart by its watch.
"""

from collections.abc import Sequence

import anyio
from anyio.abc import TaskGroup

from router.core.errors import InvalidRequest, StaleRecord, SwitchyardError, UnsupportedSetting
from router.core.models import Endpoint, EndpointPhase, RolloutPhase
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.context import Context
from router.engine.endpoint_names import PRESENT, alias_of, make_alias, refuse_taken, require_open
from router.engine.holding import find_holder, in_progress
from router.engine.ledger import tell_who
from router.engine.status import Health
from router.engine.steering import cut_bake_short
from router.engine.supervisor import Supervisor
from router.stores.base import Change


class Endpoints:
    def __init__(self, context: Context, supervisor: Supervisor, health: Health, group: TaskGroup) -> None:
        self._context = context
        self._ledger = context.ledger
        self._supervisor = supervisor
        self._health = health
        self._group = group
        self._watched: set[str] = set()
        self._adding = anyio.Lock()  # what is looked at (names, aliases) holds until it is written

    # --- at the router's start --------------------------------------------------------------------------

    async def restore(self) -> list[str]:
        """What is recorded gets what it lacks; what only has slots is recorded: they are right, users get it.

        Raises UnsupportedSetting.
        """
        context = self._context
        present = {DEFAULT_ENDPOINT, *await context.proxy.endpoints()}
        records = {record.id: record for record in await context.store.find(Endpoint, phases=PRESENT)}
        await self._record_open(sorted(present - records.keys()), None, None, None)
        records = {record.id: record for record in await context.store.find(Endpoint, phases=PRESENT)}
        self._refuse_shared_alias(records[DEFAULT_ENDPOINT], list(records.values()))
        opened = [name for name, record in records.items() if record.phase is EndpointPhase.OPEN]
        await context.proxy.ensure_endpoints(opened)
        return list(records)

    def _refuse_shared_alias(self, default: Endpoint, records: Sequence[Endpoint]) -> None:
        """PRODUCTION_ALIAS may have been changed to one that an endpoint has been given since."""
        alias = alias_of(self._context.policy, default)
        for other in records:
            if other.id != default.id and alias_of(self._context.policy, other) == alias:
                raise UnsupportedSetting(f"PRODUCTION_ALIAS={alias} is the alias of endpoint {other.id}")

    # --- commands ---------------------------------------------------------------------------------------

    async def add(
        self, names: Sequence[str], *, alias: str | None = None, by: str | None, reason: str | None
    ) -> list[Endpoint]:
        """All of them or none, with one reload of the proxy. Those that there are already stay as they are.

        Raises EndpointExists, EndpointClosing; `alias` is for a single one.
        """
        async with self._adding:
            new = await self._choose_new(names, alias)
            await self._record_open(new, alias, by, reason)
            try:
                await self._context.proxy.ensure_endpoints(new)
            except SwitchyardError as error:
                for name in new:
                    await self._close(name, None, f"it could not be added: {error.message}", force=True)
                raise
            finally:
                for name in new:
                    self.watch(name)
        return [await require_open(self._context, name) for name in names]

    async def _choose_new(self, names: Sequence[str], alias: str | None) -> list[str]:
        policy = self._context.policy
        present = {found.id: found for found in await self._context.store.find(Endpoint, phases=PRESENT)}
        new: dict[str, Endpoint] = {}
        for name in names:
            known = present.get(name)
            if known is None or known.phase is not EndpointPhase.OPEN or alias not in {None, known.alias}:
                wanted = self._draft(name, alias, None, None)
                refuse_taken(policy, wanted, [*present.values(), *new.values()])
                new[name] = wanted
        return list(new)

    async def _record_open(
        self, names: Sequence[str], alias: str | None, by: str | None, reason: str | None
    ) -> None:
        """The record of one that was removed is used again: a name is a record's id."""
        closed = await self._context.store.find(Endpoint, phases=[EndpointPhase.CLOSED])
        earlier = {record.id: record for record in closed}
        changes: list[Change] = []
        for name in names:
            fresh = self._draft(name, alias, by, reason)
            text = tell_who(f"endpoint {name} is added", by, reason)
            if name in earlier:
                again = {"phase": fresh.phase, "alias": fresh.alias, "requested_by": by, "reason": reason}
                changes.append(self._ledger.moved(earlier[name], text, **again))
            else:
                changes.append(self._ledger.opened(fresh, text))
        await self._ledger.apply(*changes)

    def _draft(self, name: str, alias: str | None, by: str | None, reason: str | None) -> Endpoint:
        now = self._context.clock.now()
        own = None if name == DEFAULT_ENDPOINT else alias or make_alias(self._context.policy, name)
        return Endpoint(
            id=name,
            created_at=now,
            updated_at=now,
            entered={str(EndpointPhase.OPEN): now},
            alias=own,
            requested_by=by,
            reason=reason,
        )

    async def remove(self, name: str, *, by: str | None, reason: str | None, force: bool) -> None:
        """Its watch does the rest. `force` pushes a running rollout aside.

        Raises InvalidRequest, RolloutInProgress, UnknownEndpoint.
        """
        if name == DEFAULT_ENDPOINT:
            raise InvalidRequest("the default endpoint cannot be removed: it is the public URL itself")
        while True:
            try:
                await self._close(name, by, reason, force=force)
                return
            except StaleRecord:  # it, or the rollout to be pushed aside, has moved meanwhile: look again
                continue

    async def _close(self, name: str, by: str | None, reason: str | None, *, force: bool) -> None:
        context = self._context
        async with context.traffic_locks[name]:
            endpoint = await require_open(context, name)
            holder = await find_holder(context.store, name)
            aside: list[Change] = []
            if holder is not None and holder.phase is RolloutPhase.BAKING:
                aside.append(cut_bake_short(self._ledger, holder))
            elif holder is not None:
                if not force:
                    raise in_progress(holder)
                aside.append(self._ledger.moved(holder, f"endpoint {name} is removed", preempted=True))
            text = tell_who(f"endpoint {name} is removed", by, reason)
            closing = self._ledger.moved(
                endpoint, text, phase=EndpointPhase.CLOSING, requested_by=by, reason=reason
            )
            await self._ledger.apply(*aside, closing)

    # --- watches ----------------------------------------------------------------------------------------

    def watch(self, name: str) -> None:
        """Until it is gone; unless it is watched already."""
        if name not in self._watched:
            self._watched.add(name)
            self._group.start_soon(self._watch, name)

    async def _watch(self, name: str) -> None:
        # No await between the last look at the record and the end: one that comes back meanwhile is watched.
        while not (await self._ledger.latest(Endpoint, name)).phase.terminal:
            async with anyio.create_task_group() as watches:
                watches.start_soon(self._health.watch, name)
                await self._supervisor.watch(name, self._group)
                watches.cancel_scope.cancel()
        self._watched.discard(name)
