"""Keeps the registry's alias on what is being served: it follows the switch, and never leads it.

The last value that we wrote is remembered, so that any other value found later is known to be somebody's
request and not a disagreement.
"""

from router.core.models import Endpoint
from router.core.traffic import Upstream
from router.engine.context import Context
from router.engine.endpoint_names import alias_of


async def sync_alias(context: Context, endpoint_name: str) -> None:
    """Raises RegistryUnavailable; the caller tries again."""
    async with context.alias_locks[endpoint_name]:
        active = (await context.proxy.read_traffic(endpoint_name)).active
        endpoint = await context.store.get(Endpoint, endpoint_name)
        if active is not None and not alias_follows(endpoint, active):
            await _move_alias(context, endpoint, active)


async def _move_alias(context: Context, endpoint: Endpoint, active: Upstream) -> None:
    """Intent first: a router killed in between would leave a value that nobody remembers having set."""
    alias = alias_of(context.policy, endpoint)
    carriers = {active.model_name, *endpoint.alias_carriers}
    if endpoint.alias_model is not None:
        carriers.add(endpoint.alias_model)
    asked = await _is_asked_for_another(context, endpoint, active)
    writes = {active.model_version, *endpoint.alias_writes}
    if (carriers, writes) != (set(endpoint.alias_carriers), set(endpoint.alias_writes)):
        endpoint = await context.ledger.move(
            endpoint, alias_carriers=tuple(sorted(carriers)), alias_writes=tuple(sorted(writes))
        )
    if not asked:
        await context.registry.set_alias(active.model_name, alias, active.model_version)
    for left in carriers - {active.model_name}:
        await context.registry.delete_alias(left, alias)
    await context.ledger.move(
        endpoint,
        f"alias {alias} points to {active.model_name} version {active.model_version}",
        alias_model=active.model_name,
        alias_version=active.model_version,
        alias_carriers=(),
        alias_writes=(),
    )


async def _is_asked_for_another(context: Context, endpoint: Endpoint, active: Upstream) -> bool:
    """Whether somebody has moved it since: that is a request, and stays for the next look."""
    if context.policy.alias_poll_seconds == 0 or endpoint.alias_model != active.model_name:
        return False
    found = (await context.registry.aliases(active.model_name)).get(alias_of(context.policy, endpoint))
    ours = {endpoint.alias_version, *endpoint.alias_writes}
    return found not in {None, endpoint.alias_asked, active.model_version, *ours}


async def forget_alias(context: Context, endpoint: Endpoint) -> None:
    """Take the alias of an endpoint that goes off its models; a value that somebody else gave it stays."""
    alias = alias_of(context.policy, endpoint)
    async with context.alias_locks[endpoint.id]:
        for model in {endpoint.alias_model, *endpoint.alias_carriers}:
            if model is None:
                continue
            found = (await context.registry.aliases(model)).get(alias)
            if found is not None and (model in endpoint.alias_carriers or found == endpoint.alias_version):
                await context.registry.delete_alias(model, alias)


def alias_follows(endpoint: Endpoint, active: Upstream) -> bool:
    remembered = (endpoint.alias_model, endpoint.alias_version)
    return remembered == (active.model_name, active.model_version) and not endpoint.alias_carriers
