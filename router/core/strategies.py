"""How a rollout moves users to its candidate: all at once or by shares, by itself or at a word."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router.core.traffic import Weight
from router.core.verdicts import AnalysisPolicy

MAX_HOLD_SECONDS = 7 * 86_400
MAX_STEPS = 100
DEFAULT_WEIGHTS = (5, 10, 25, 50, 100)

Seconds = Annotated[float, Field(ge=0, le=MAX_HOLD_SECONDS, allow_inf_nan=False)]


class Step(BaseModel):
    """`hold` seconds at `weight` percent. The step to 100 is the promotion itself; then comes the bake."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weight: Weight
    hold: Seconds | None = None  # None: the plan's


def read_steps(value: object) -> object:
    """Weights alone, or `{linear: N}` for N equal steps, to steps; anything else as it is."""
    if isinstance(value, Mapping) and set(value) == {"linear"}:
        count = value["linear"]
        if type(count) is not int or not 1 <= count <= MAX_STEPS:
            raise ValueError(f"`linear` must be a number of steps, 1 to {MAX_STEPS}")
        return tuple({"weight": 100 * (number + 1) / count} for number in range(count))
    if isinstance(value, list | tuple):
        return tuple({"weight": each} if isinstance(each, int | float) else each for each in value)
    return value


class AnalysisPlan(AnalysisPolicy):
    """Whether candidate and active server are compared while both have traffic, and during the bake."""

    model_config = ConfigDict(strict=True)

    enabled: bool = True
    inconclusive: Literal["extend", "wait"] = "extend"  # too little traffic: hold on, or wait for a person


class Strategy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: Literal["blue_green", "canary"] = "blue_green"
    steps: Annotated[tuple[Step, ...], BeforeValidator(read_steps), Field(max_length=MAX_STEPS)] = ()
    hold: Seconds = 60.0  # of a step that does not say
    promotion: Literal["auto", "manual"] = "auto"
    bake: Seconds = 60.0  # after the switch: how long the watch goes on
    # When two servers do not fit in memory: end the rollout, or stop the active one first, with a gap.
    if_tight: Literal["refuse", "replace"] = "refuse"
    sticky: bool = False  # a client stays with the side that it met first, by a cookie
    analysis: AnalysisPlan = AnalysisPlan()

    @model_validator(mode="before")
    @classmethod
    def fill_steps(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("strategy") == "canary" and given.get("steps") is None:
            return {**given, "steps": list(DEFAULT_WEIGHTS)}
        return given

    @model_validator(mode="after")
    def refuse_contradictions(self) -> Self:
        if self.strategy == "blue_green":
            for field, given in {"steps": bool(self.steps), "sticky": self.sticky}.items():
                if given:
                    raise ValueError(f"`{field}` belongs to the strategy canary, not to blue_green")
            return self
        weights = [step.weight for step in self.steps]
        if not weights or weights[0] <= 0:
            raise ValueError("`steps` must have a first weight above 0")
        if any(later <= earlier for earlier, later in pairwise(weights)):
            raise ValueError("`steps` are out of order: each weight must be above the one before it")
        return self

    @property
    def shares(self) -> tuple[Step, ...]:
        """The steps before the promotion."""
        return tuple(step for step in self.steps if step.weight < 100)

    @property
    def gradual(self) -> bool:
        """Whether the candidate stands beside the active server for a while before the switch."""
        return bool(self.shares) or self.manual

    @property
    def manual(self) -> bool:
        return self.promotion == "manual"

    def hold_of(self, step: int) -> float:
        """Seconds at this step; before the first one (-1) there is nothing to hold."""
        if not 0 <= step < len(self.shares):
            return 0.0
        hold = self.shares[step].hold
        return self.hold if hold is None else hold

    def step_at(self, weight: float) -> int:
        """The last step that is not above the weight; -1 before the first."""
        return sum(step.weight <= weight for step in self.shares) - 1
