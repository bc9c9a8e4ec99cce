"""Keeps the registry's alias on what is being served: it follows the switch, and never leads it.

The last value that we wrote is remembered, so that any other value found later is known to be somebody's
request and not a disagreement.
"""

from router.core.models import Endpoint
from router.core.traffic import Upstream
from router.engine.context import Context


async def sync_alias(context: Context, endpoint_name: str) -> None:
    """Raises RegistryUnavailable; the caller tries again."""
    async with context.alias_locks[endpoint_name]:
        active = (await context.proxy.read_traffic(endpoint_name)).active
        endpoint = await context.store.get(Endpoint, endpoint_name)
        if active is not None and not alias_follows(endpoint, active):
            await _move_alias(context, endpoint, active)


async def _move_alias(context: Context, endpoint: Endpoint, active: Upstream) -> None:
    alias, left = context.policy.production_alias, endpoint.alias_model
    await context.registry.set_alias(active.model_name, alias, active.model_version)
    if left is not None and left != active.model_name:
        await context.registry.delete_alias(left, alias)
    await context.ledger.move(
        endpoint,
        f"alias {alias} points to {active.model_name} version {active.model_version}",
        alias_model=active.model_name,
        alias_version=active.model_version,
    )


def alias_follows(endpoint: Endpoint, active: Upstream) -> bool:
    return (endpoint.alias_model, endpoint.alias_version) == (active.model_name, active.model_version)
