"""What a store says when it turns a change down: the same words from every driver."""

from router.core.errors import (
    IdempotencyKeyReused,
    RolloutInProgress,
    StaleRecord,
    UnknownEndpoint,
    UnknownRecord,
)
from router.core.models import Record
from router.stores.encoding import Stored


def unknown(kind: type[Record], record_id: str) -> UnknownRecord:
    return UnknownRecord(f"there is no {kind.__name__.lower()} {record_id[:100]!r}")


def moved_by_another(before: Stored) -> StaleRecord:
    return StaleRecord(
        f"{_name(before)} is no longer {before.phase} at revision {before.revision}: somebody else moved it"
        " first; nothing was changed",
        hint="read it again",
    )


def exists_already(record: Stored) -> StaleRecord:
    return StaleRecord(
        f"{_name(record)} exists already: somebody else made it first; nothing was changed",
        hint="read it again",
    )


def in_progress(endpoint: str, holder_id: str) -> RolloutInProgress:
    return RolloutInProgress(
        f"rollout {holder_id} of endpoint {endpoint} is still going on; nothing was changed",
        hint="wait for it to end, or abort it",
        detail={"rollout_id": holder_id},
    )


def removed(endpoint: str) -> UnknownEndpoint:
    return UnknownEndpoint(f"endpoint {endpoint} is being removed, or was; nothing was started")


def key_taken(key: str) -> IdempotencyKeyReused:
    return IdempotencyKeyReused(f"the Idempotency-Key {key[:100]!r} was used before; nothing was changed")


def _name(record: Stored) -> str:
    return f"{type(record).__name__.lower()} {record.id}"
