"""Which endpoints there are, and the alias that each keeps in the registry.

Two endpoints may serve the same model, so an alias says which one a version serves at: the default endpoint's
is PRODUCTION_ALIAS, another's is its own. No two endpoints share one, else they would move it to and fro.
"""

from collections.abc import Collection

from router.core.errors import EndpointClosing, EndpointExists, NotFound, UnknownEndpoint
from router.core.models import Endpoint, EndpointPhase
from router.engine.context import Context, Policy

SHOWN_NAMES = 20
LONGEST_ALIAS = 255
PRESENT = frozenset(phase for phase in EndpointPhase if not phase.terminal)


def alias_of(policy: Policy, endpoint: Endpoint) -> str:
    return endpoint.alias or policy.production_alias


def make_alias(policy: Policy, name: str) -> str:
    """MLflow takes no dots in an alias."""
    return f"{policy.production_alias}-{name}".replace(".", "-")[:LONGEST_ALIAS]


async def require_open(context: Context, name: str) -> Endpoint:
    """Raises UnknownEndpoint, with the names of those that there are."""
    endpoint = await require_present(context, name)
    if endpoint.phase is EndpointPhase.CLOSING:
        raise UnknownEndpoint(f"endpoint {name} is being removed")
    return endpoint


async def require_present(context: Context, name: str) -> Endpoint:
    """Open, or being removed. Raises UnknownEndpoint."""
    endpoint = await require_known(context, name)
    if endpoint.phase.terminal:
        raise await _unknown(context, name)
    return endpoint


async def require_known(context: Context, name: str) -> Endpoint:
    """One that was removed too: its history stays. Raises UnknownEndpoint."""
    try:
        return await context.ledger.latest(Endpoint, name)
    except NotFound as error:
        raise await _unknown(context, name) from error


async def _unknown(context: Context, name: str) -> UnknownEndpoint:
    known = sorted(endpoint.id for endpoint in await context.store.find(Endpoint, phases=PRESENT))
    shown = ", ".join(known[:SHOWN_NAMES])
    more = f" and {len(known) - SHOWN_NAMES} more" if len(known) > SHOWN_NAMES else ""
    hint = f"known endpoints: {shown}{more}; POST /admin/endpoints adds others"
    return UnknownEndpoint(f"there is no endpoint {name}", hint=hint)


def refuse_taken(policy: Policy, wanted: Endpoint, present: Collection[Endpoint]) -> None:
    """Raises EndpointExists, EndpointClosing. Case tells no two apart: not every file system knows it."""
    alias = alias_of(policy, wanted)
    for other in present:
        taken = alias_of(policy, other)
        if other.id.lower() == wanted.id.lower():
            if other.phase is EndpointPhase.CLOSING:
                raise EndpointClosing(f"endpoint {other.id} is still being removed; nothing was added")
            raise EndpointExists(
                f"there is an endpoint {other.id} already, with the alias {taken}; nothing was added"
            )
        if taken.lower() == alias.lower():
            raise EndpointExists(
                f"the alias {alias} of {wanted.id} is that of endpoint {other.id}; nothing was added",
                hint="give it an `alias` of its own",
            )
