"""What a gate is given, and what it says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from router.core.clock import Clock
from router.core.models import Rollout, Server
from router.core.verdicts import Verdict
from router.engine.probing import Prober
from router.registries.base import Registry


@dataclass(frozen=True)
class Case:
    rollout: Rollout
    candidate: Server
    champion: Server | None  # the active server; None: the endpoint has none yet
    registry: Registry
    prober: Prober
    clock: Clock
    challenges: Path  # folder of the operator's held-out rows


@dataclass(frozen=True)
class Ruling:
    verdict: Verdict
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)  # as JSON can say it: no NaN


class Gate(Protocol):
    @property
    def name(self) -> str: ...

    async def judge(self, case: Case) -> Ruling:
        """It may be asked again from its beginning, after an error or a crash. It needs no deadline.

        A SwitchyardError that is retryable is tried again until the deadline; any other is inconclusive.
        """
