"""What was done at an endpoint, newest first: its rollouts, with what each replaced and what was noted."""

from collections.abc import Sequence
from dataclasses import dataclass

from router.core.errors import NotFound, UnknownRecord
from router.core.models import Event, Rollout, Server
from router.engine.context import Context
from router.engine.endpoint_names import require_known


@dataclass(frozen=True)
class HistoryEntry:
    rollout: Rollout
    previous: Server | None  # what served when it switched
    events: Sequence[Event]


@dataclass(frozen=True)
class HistoryPage:
    entries: Sequence[HistoryEntry]
    next_cursor: str | None  # None: this is the oldest page
    events: Sequence[Event]  # of the endpoint itself: added, removed, its alias moved


async def read_history(context: Context, endpoint: str, limit: int, cursor: str | None) -> HistoryPage:
    """Of an endpoint that was removed too. Raises UnknownEndpoint, UnknownRecord for a cursor not of it."""
    await require_known(context, endpoint)
    if cursor is not None and (await context.store.get(Rollout, cursor)).endpoint != endpoint:
        raise UnknownRecord(f"{cursor} is no rollout of endpoint {endpoint}", hint="use a `next_cursor`")
    found = await context.store.find(
        Rollout, endpoint=endpoint, newest_first=True, older_than=cursor, limit=limit + 1
    )
    page = found[:limit]
    return HistoryPage(
        entries=[await _read_entry(context, rollout) for rollout in page],
        next_cursor=page[-1].id if len(found) > limit else None,
        events=await context.store.events(endpoint),
    )


async def _read_entry(context: Context, rollout: Rollout) -> HistoryEntry:
    previous = rollout.previous_server_id
    return HistoryEntry(
        rollout=rollout,
        previous=await _find_server(context, previous) if previous is not None else None,
        events=await context.store.events(rollout.id),
    )


async def _find_server(context: Context, server_id: str) -> Server | None:
    """None: it served before this store began."""
    try:
        return await context.store.get(Server, server_id)
    except NotFound:
        return None
