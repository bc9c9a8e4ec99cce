"""Somebody moves an endpoint's alias in the registry: that asks for a rollout of the version it points to.

It is a rollout like any other, with its gates. If it succeeds, serving and alias agree; if it does not, the
alias is put back on what is served. The value that we wrote last is remembered, so our own moves are no
requests.
"""

from collections.abc import Mapping
from contextlib import suppress

import structlog

from router.core.errors import AlreadyFinished, Conflict, SwitchyardError
from router.core.models import Endpoint, EndpointPhase, Rollout
from router.core.traffic import Upstream
from router.engine.aliasing import alias_follows
from router.engine.commands import Caller, Commands, RolloutRequest
from router.engine.context import Context
from router.engine.endpoint_names import alias_of
from router.engine.steering import Steering

BY_ALIAS = "the registry's alias"

log = structlog.get_logger()


class AliasRequests:
    def __init__(self, context: Context, commands: Commands) -> None:
        self._context = context
        self._commands = commands
        self._steering = Steering(context)

    async def run(self) -> None:
        """Returns only if the policy wants none of it."""
        while (seconds := self._context.policy.alias_poll_seconds) > 0:
            await self._context.clock.sleep(seconds)
            try:
                await self.look()
            except SwitchyardError as error:
                log.warning("cannot look at the aliases", error=error.message)

    async def look(self) -> None:
        """One question to the registry for each model that is served, however many endpoints serve it."""
        known: dict[str, Mapping[str, int]] = {}
        for endpoint in await self._context.store.find(Endpoint, phases=[EndpointPhase.OPEN]):
            active = (await self._context.proxy.read_traffic(endpoint.id)).active
            if active is None:
                continue
            if active.model_name not in known:
                known[active.model_name] = await self._context.registry.aliases(active.model_name)
            alias = alias_of(self._context.policy, endpoint)
            try:
                await self._look_at(endpoint.id, alias, known[active.model_name].get(alias))
            except SwitchyardError as error:  # the others' aliases are looked at all the same
                log.warning("cannot look at an alias", endpoint=endpoint.id, error=error.message)

    async def _look_at(self, name: str, alias: str, read: int | None) -> None:
        async with self._context.alias_locks[name]:
            endpoint = await self._context.store.get(Endpoint, name)
            active = (await self._context.proxy.read_traffic(name)).active
            if active is None or not alias_follows(endpoint, active):
                return
            if read == endpoint.alias_version:
                if endpoint.alias_asked is not None:
                    await self._take_back(endpoint, alias, active)
                return
            # What was read may be older than our last move of it.
            found = (await self._context.registry.aliases(active.model_name)).get(alias)
            if found != read:
                return
            if found is None:
                if endpoint.alias_version is not None:
                    await self._put_back(endpoint, alias, active, "it was deleted")
                return
            if endpoint.alias_asked == found and endpoint.alias_rollout is not None:
                rollout = await self._context.store.get(Rollout, endpoint.alias_rollout)
                if rollout.phase.terminal:
                    why = rollout.failure.message if rollout.failure else f"the rollout is {rollout.phase}"
                    await self._put_back(endpoint, alias, active, why)
                return
            await self._ask(endpoint, alias, active, found)

    async def _take_back(self, endpoint: Endpoint, alias: str, active: Upstream) -> None:
        """Somebody has put it back: the rollout that it asked for ends, unless users have that already."""
        found = (await self._context.registry.aliases(active.model_name)).get(alias)
        if found != endpoint.alias_version:
            return
        if endpoint.alias_rollout is not None and endpoint.alias_asked != found:
            with suppress(AlreadyFinished):
                reason = f"alias {alias} was moved back to version {found}"
                await self._steering.abort(endpoint.alias_rollout, BY_ALIAS, reason)
        await self._context.ledger.move(endpoint, alias_asked=None, alias_rollout=None)

    async def _ask(self, endpoint: Endpoint, alias: str, active: Upstream, version: int) -> None:
        reason = f"alias {alias} was moved to version {version}"
        # The same request after a crash: the key finds what it has made already.
        key = f"alias:{endpoint.id}:{version}:{endpoint.revision}"
        wanted = RolloutRequest(
            active.model_name, version, endpoint=endpoint.id, reason=reason, settle_seconds=0
        )
        try:
            started = await self._commands.start_rollout(wanted, Caller(BY_ALIAS, key, fingerprint=key))
        except Conflict as busy:
            log.info("an alias waits for its rollout", endpoint=endpoint.id, because=busy.message)
        except SwitchyardError as refused:
            if refused.retryable:
                raise
            await self._put_back(endpoint, alias, active, refused.message)
        else:
            await self._context.ledger.move(endpoint, reason, alias_asked=version, alias_rollout=started)

    async def _put_back(self, endpoint: Endpoint, alias: str, active: Upstream, why: str) -> None:
        await self._context.registry.set_alias(active.model_name, alias, active.model_version)
        text = f"alias {alias} is put back on version {active.model_version}: {why}"
        await self._context.ledger.move(endpoint, text, alias_asked=None, alias_rollout=None)
