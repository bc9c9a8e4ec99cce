"""What passes between the protocol and the HTTP app: bytes in, an answer out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    media_type: str


# (request body, its Content-Type header or None) -> answer; blocking, called from several threads at once.
Predict = Callable[[bytes, str | None], Answer]


class Lean(Protocol):
    """JSON body -> answer, or None where `Predict` has to be asked."""

    def answer(self, body: bytes) -> bytes | None: ...

    def answer_together(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        """What `answer` says of each, but for how sums of floats are rounded."""


# Told of every call of the model, from any thread: how many rows it was given.
CountRows = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server takes on, and for how long."""

    request_seconds: float = 60
    body_bytes: int = 64 * 2**20
    bodies: int = 4  # times `body_bytes`: of all requests together, while they are read or wait
    waiting: int = 128  # requests that wait for a thread or are in one
    threads: int = 4
    turns: int = 0  # threads, where more: of requests that wait to be answered together
    inline_bytes: int = 16 * 2**10  # larger bodies would hold the event loop for too long


@dataclass(frozen=True, slots=True)
class About:
    """What a server says of its model."""

    mlflow_version: str
    uri: str = ""
    name: str | None = None
    version: str | None = None
    run_id: str | None = None
    mlflow_uri: str | None = None
    path: str = "native"  # compiled or native
    reason: str = ""
    classes: tuple[bool | int | float | str, ...] = field(default=())
    class_names: tuple[str, ...] = field(default=())
    columns: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> tuple[bool | int | float | str, ...]:
        """As people call the classes, where there is one name for each: else whose is whose, nobody knows."""
        return self.class_names if len(self.class_names) == len(self.classes) else self.classes
