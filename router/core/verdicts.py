"""What a gate or an analysis says of a candidate."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class Finding(BaseModel):
    """A verdict, in words, with the figures that it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    reason: str
    figures: dict[str, Any] = Field(default_factory=dict)
