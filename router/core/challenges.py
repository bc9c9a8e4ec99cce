"""What a person may ask of the `challenge` gate: the measures, and by how much the candidate may be worse."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MetricName = Literal["rmse", "mae", "r2", "accuracy", "f1", "balanced_accuracy"]
ERRORS: frozenset[MetricName] = frozenset({"rmse", "mae"})  # lower is better; for the others, higher
OF_NUMBERS: frozenset[MetricName] = frozenset({"rmse", "mae", "r2"})  # the others are of classes
SUFFIXES = (".csv", ".json")

Finite = Annotated[float, Field(allow_inf_nan=False)]
Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def read_metrics(value: object) -> object:
    """One name, or a list of them."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def check_metrics(metrics: tuple[MetricName, ...]) -> tuple[MetricName, ...]:
    if len(set(metrics)) < len(metrics):
        raise ValueError("a metric is named twice")
    of_numbers = OF_NUMBERS.intersection(metrics)
    if of_numbers and len(of_numbers) < len(metrics):
        raise ValueError(f"{', '.join(sorted(of_numbers))} are for numbers, the others for classes")
    return metrics


def check_data(value: str) -> str:
    """Only a name inside the folder: where that is, the operator of the router says."""
    path = PurePosixPath(value)
    plain = value.isprintable() and "\\" not in value and len(value) <= 1024
    if not plain or path.is_absolute() or ".." in path.parts or str(path) != value:
        raise ValueError("must be a plain path inside CHALLENGE_PATH, such as churn/held_out.csv")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"must end in {' or '.join(SUFFIXES)}")
    return value


class Challenge(BaseModel):
    """Without a tolerance the candidate may not be worse than the champion. Bounds hold beside that."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    metric: Annotated[
        tuple[MetricName, ...],
        Field(min_length=1),
        BeforeValidator(read_metrics),
        AfterValidator(check_metrics),
    ]
    tolerance: Tolerance | None = None  # in the metric's own unit
    relative_tolerance: Tolerance | None = None  # share of the champion's value
    max: Finite | None = None
    min: Finite | None = None
    data: Annotated[str, AfterValidator(check_data)] | None = None  # None: the champion's held-out rows
    target: Annotated[str, Field(min_length=1, max_length=500)] | None = None  # column of `data`
    rows: Annotated[int, Field(ge=2, le=100_000)] = 1000

    @model_validator(mode="after")
    def refuse_contradictions(self) -> Self:
        if self.tolerance is not None and self.relative_tolerance is not None:
            raise ValueError("give `tolerance` or `relative_tolerance`, not both")
        if len(self.metric) > 1:
            for field in ("tolerance", "max", "min"):
                if getattr(self, field) is not None:
                    raise ValueError(f"`{field}` is in one metric's unit, and {len(self.metric)} are named")
        if self.max is not None and self.metric[0] not in ERRORS:
            raise ValueError(f"`max` is for errors; {self.metric[0]} takes `min`")
        if self.min is not None and self.metric[0] in ERRORS:
            raise ValueError(f"`min` is for scores; {self.metric[0]} takes `max`")
        if (self.max or 0.0) < 0.0 or (self.min or 0.0) > 1.0:
            raise ValueError(f"no {self.metric[0]} is within the bound: nothing could pass")
        if self.data is None and self.target is not None:
            raise ValueError("`target` means nothing without `data`: the champion's rows name their own")
        if self.data is not None and self.data.endswith(".csv") and self.target is None:
            raise ValueError("`data` needs `target`, the column of the true values")
        return self

    @property
    def bounded(self) -> bool:
        return self.max is not None or self.min is not None

    @property
    def of_numbers(self) -> bool:
        return self.metric[0] in OF_NUMBERS

    def find_gain(self, metric: MetricName, score: float, best: float) -> float:
        """By how much the score is better than the other."""
        return best - score if metric in ERRORS else score - best

    def find_allowance(self, best: float) -> float:
        """By how much the candidate may be worse than a champion of this score."""
        if self.relative_tolerance is not None:
            return abs(best) * self.relative_tolerance
        return self.tolerance or 0.0
