"""What a candidate must pass before it gets traffic: the plan of a spec or request, and the verdicts."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from router.core.challenges import Challenge
from router.core.verdicts import Verdict

PROBE = "probe"  # always on, so no plan has it

Finite = Annotated[float, Field(allow_inf_nan=False)]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
MetricName = Annotated[str, Field(min_length=1, max_length=250)]


class MetricBound(BaseModel):
    """Bounds on one metric of the version's run: on its own, or against the champion's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max: Finite | None = None
    min: Finite | None = None
    better_than: Literal["champion"] | None = None
    tolerance: Tolerance | None = None  # how much worse it may be; None: it must be better
    relative_tolerance: Tolerance | None = None  # the same, as a share of the champion's value
    lower_is_better: bool | None = None  # None: a `max` alone says yes, a `min` alone no

    @model_validator(mode="after")
    def refuse_contradictions(self) -> Self:
        if self.max is None and self.min is None and self.better_than is None:
            raise ValueError("a bound needs `max`, `min` or `better_than`")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError("`min` is above `max`: nothing could pass")
        if self.better_than is None:
            for field in ("tolerance", "relative_tolerance", "lower_is_better"):
                if getattr(self, field) is not None:
                    raise ValueError(f"`{field}` means nothing without `better_than`")
            return self
        if self.tolerance is not None and self.relative_tolerance is not None:
            raise ValueError("give `tolerance` or `relative_tolerance`, not both")
        if self.lower_is_better is None and (self.max is None) == (self.min is None):
            raise ValueError("`better_than` needs `lower_is_better`: true for an error, false for a score")
        return self

    @property
    def falls(self) -> bool:
        """Whether a lower value is a better one."""
        return self.max is not None if self.lower_is_better is None else self.lower_is_better


class GatePlan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    signature: bool | None = None  # None: compared with another version of the same model only
    metric: dict[MetricName, MetricBound] = Field(default_factory=dict, max_length=100)
    challenge: Challenge | None = None
    deadline: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 60.0  # seconds for each gate
    inconclusive: Literal["fail", "pass"] = "fail"


class GateResult(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    verdict: Verdict
    reason: str
    evidence: dict[str, Any] = Field(default_factory=dict)
    started: float
    ended: float

    def __str__(self) -> str:
        return f"{self.name} {self.verdict}: {self.reason}"


def find_objections(gates: tuple[GateResult, ...], plan: GatePlan) -> list[GateResult]:
    """What keeps the candidate from traffic."""
    against = {Verdict.FAILED} | ({Verdict.INCONCLUSIVE} if plan.inconclusive == "fail" else set())
    return [gate for gate in gates if gate.verdict in against]
