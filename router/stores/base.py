"""The port to durable state. Every write is guarded: it holds only if the record is still what we read.

Changes that belong together are applied together or not at all, each with its event.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from router.core.models import Event, Record

R = TypeVar("R", bound=Record)
R_co = TypeVar("R_co", bound=Record, covariant=True)


@dataclass(frozen=True)
class Insert:
    record: Record
    event: Event


@dataclass(frozen=True)
class Update(Generic[R_co]):
    """Write `after` if the stored record still has `before`'s phase and revision."""

    before: R_co
    after: R_co
    event: Event | None = None


@dataclass(frozen=True)
class Claim:
    """Remember an Idempotency-Key together with the record that its request made."""

    key: str
    fingerprint: str  # of method, path and body
    record_id: str
    at: float


Change = Insert | Update[Record] | Claim


class Store(Protocol):
    """Errors: StaleRecord, RolloutInProgress, UnknownEndpoint, IdempotencyKeyReused, UnknownRecord,
    StorageFull, StoreUnavailable."""

    async def start(self) -> None:
        """Open, and bring the schema up to date."""

    async def close(self) -> None: ...

    async def lead(self) -> bool:
        """Whether this router may work on it: at most one may, from its first yes until it closes or dies.

        To be asked again and again: a yes that was lost with a connection is given to whoever asks first.
        """

    async def check(self) -> None:
        """Raise StoreUnavailable if it cannot be written now."""

    async def apply(self, *changes: Change) -> None:
        """All of them in one transaction, durable on return; on any error none of them.

        StaleRecord: an update's record was moved by somebody else. RolloutInProgress (its `detail` has
        `rollout_id`): a rollout that holds its endpoint exists already for that endpoint.
        The same for an endpoint that is to be closed while a rollout holds it; and UnknownEndpoint for a
        rollout that would hold one that is closing or closed. IdempotencyKeyReused: a claim's key exists
        already. Changes count in their order: an update that
        lets go of an endpoint before an insert that takes it is fine.
        """

    async def get(self, kind: type[R], record_id: str) -> R:
        """Raises UnknownRecord."""

    async def find(
        self,
        kind: type[R],
        *,
        phases: Collection[str] | None = None,
        endpoint: str | None = None,
        newest_first: bool = False,
        older_than: str | None = None,
        limit: int | None = None,
    ) -> list[R]:
        """By time of creation (ties: by order of insertion). `endpoint` for rollouts and servers only.

        `older_than`: only what comes before the record of this id; nothing if there is none.
        """

    async def claimed(self, key: str) -> Claim | None: ...

    async def events(self, subject: str | None = None, *, limit: int = 200) -> Sequence[Event]:
        """The newest `limit` events, oldest first."""
