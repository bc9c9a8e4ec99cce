"""The port to the model registry (MLflow): runs, versions, aliases, and what is logged with a model."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class RunStatus(StrEnum):
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True)
class RunDataset:
    """Data that a run says it used. The digest tells whether it was the same data."""

    name: str
    digest: str
    context: str | None = None  # e.g. "training", "testing"
    source_type: str | None = None
    source: str | None = None  # JSON, as the source type writes it


@dataclass(frozen=True)
class Run:
    run_id: str
    status: RunStatus
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: tuple[RunDataset, ...] = ()


@dataclass(frozen=True)
class ModelVersion:
    name: str
    version: int
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


class Registry(Protocol):
    """Errors: RegistryUnavailable, RegistryRefusedHost, UnknownVersion.

    Each call is bounded: a few quick retries, then RegistryUnavailable.
    """

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raise RegistryUnavailable or RegistryRefusedHost if a real call (not /health) fails."""

    async def create_run(self, experiment: str, training_id: str, tags: dict[str, str]) -> str:
        """Run id of this training's run in this experiment (made if missing).

        Idempotent: a run that already carries the training's id in the tag `switchyard.training_id` is
        returned as it is.
        """

    async def finish_run(self, run_id: str, status: RunStatus, tags: dict[str, str]) -> None:
        """Set tags and the terminal status, whatever the status is now. Idempotent."""

    async def run(self, run_id: str) -> Run | None: ...

    async def versions_of_run(self, run_id: str) -> list[ModelVersion]:
        """Every version, under any name, whose run_id is this run; ascending by name, then version."""

    async def logged_models(self, run_id: str) -> list[str]:
        """URIs of the models that the run logged, newest last, registered or not."""

    async def register(self, name: str, run_id: str, model_uri: str) -> ModelVersion:
        """Register a logged model under a name, with the run's id. Idempotent for the same run and name."""

    async def version(self, name: str, ref: int | str) -> ModelVersion:
        """By number, or by alias (a string, without the `@`). Raises UnknownVersion."""

    async def set_version_tags(self, name: str, version: int, tags: dict[str, str]) -> None: ...

    async def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version. Empty for an unknown model."""

    async def set_alias(self, name: str, alias: str, version: int) -> None: ...

    async def delete_alias(self, name: str, alias: str) -> None:
        """Nothing there: nothing to do."""

    async def signature(self, name: str, version: int) -> dict[str, Any] | None:
        """The MLmodel's signature, parsed ({"inputs": [...], "outputs": [...], "params": ...}), or None."""

    async def input_example(self, name: str, version: int) -> bytes | None:
        """A JSON body that `/invocations` takes, if one was logged with the model."""

    async def download(self, name: str, version: int, path: str) -> bytes:
        """One file of the model's artifacts. Raises UnknownVersion if there is no such file."""
