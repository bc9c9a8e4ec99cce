"""Records and events as text, for every driver alike: what one stores, another would give back the same.

JSON in ASCII, so that no database's own encoding matters and a NUL in a log tail is only an escape. Not a
number and infinity are kept, since a model's metrics may be either.
"""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from router.core.errors import StoreUnavailable
from router.core.models import Endpoint, Record, Rollout, Server, Training

M = TypeVar("M", bound=BaseModel)

Stored = Training | Rollout | Server | Endpoint
KINDS: tuple[type[Stored], ...] = (Training, Rollout, Server, Endpoint)
KINDS_WITH_ENDPOINT = (Rollout, Server)


def as_stored(record: Record) -> Stored:
    """The record as one of the kinds that a store keeps. Raises TypeError."""
    if not isinstance(record, KINDS):
        raise TypeError(f"a store keeps no {type(record).__name__}")
    return record


def as_stored_pair(before: Record, after: Record) -> tuple[Stored, Stored]:
    """Raises ValueError if the second is not a later value of the first: the guard would guard nothing."""
    if type(before) is not type(after) or before.id != after.id or before.revision >= after.revision:
        raise ValueError(f"{after.id} at revision {after.revision} does not follow {before.id}")
    return as_stored(before), as_stored(after)


def refuse_endpoint_filter(kind: type[Record], endpoint: str | None) -> None:
    if endpoint is not None and not issubclass(kind, KINDS_WITH_ENDPOINT):
        raise ValueError(f"a {kind.__name__} belongs to no endpoint")


def encode(model: BaseModel) -> str:
    return json.dumps(model.model_dump(mode="json"), separators=(",", ":"))


def decode(model: type[M], body: str) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # Not chained: pydantic quotes the values, and a record's env is nobody else's business.
        fields = ", ".join(".".join(map(str, each["loc"])) or "its text" for each in error.errors()[:3])
        raise StoreUnavailable(
            f"a stored {model.__name__.lower()} cannot be read by this version of the router ({fields});"
            " it was left as it is",
            hint="run the version of the router that wrote it, or restore a backup",
        ) from None
