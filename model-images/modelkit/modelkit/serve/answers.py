"""What passes between the protocol and the HTTP app: bytes in, an answer out."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    media_type: str


# (request body, its Content-Type header or None) -> answer; blocking, called from several threads at once.
Predict = Callable[[bytes, str | None], Answer]
