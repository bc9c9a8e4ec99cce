"""What a runtime can say about a trainer or server: the observation that decisions are made from."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    TRAINER = "trainer"
    SERVER = "server"


class WorkloadStatus(StrEnum):
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class WorkloadState:
    owner: str
    name: str
    role: Role
    status: WorkloadStatus
    address: str | None = None  # host:port that a server is dialled by
    exit_code: int | None = None  # None while running, or if it was lost; 128+N for signal N
    out_of_memory: bool | None = None  # None: unknown
    started_at: float | None = None  # epoch seconds
    finished_at: float | None = None

    @property
    def running(self) -> bool:
        return self.status is WorkloadStatus.RUNNING
