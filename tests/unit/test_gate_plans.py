"""What a spec or a request may say of gates."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from router.core.gates import GatePlan, MetricBound

BETTER = {"better_than": "champion"}


def test_without_a_word_versions_of_one_model_are_compared_and_inconclusive_is_not_enough() -> None:
    plan = GatePlan()
    assert (plan.signature, plan.metric, plan.deadline, plan.inconclusive) == (None, {}, 60, "fail")


@pytest.mark.parametrize(
    ("bound", "falls"),
    [
        ({"max": 1}, True),
        ({"min": 1}, False),
        ({"min": 0, "max": 1, "lower_is_better": False}, False),
        ({"lower_is_better": True}, True),
    ],
)
def test_a_single_bound_tells_which_way_is_better(bound: dict[str, Any], falls: bool) -> None:
    assert MetricBound.model_validate(BETTER | bound).falls is falls


@pytest.mark.parametrize(
    ("plan", "named"),
    [
        ({"signatures": True}, "signatures"),
        ({"signature": "yes"}, "signature"),
        ({"deadline": 0}, "deadline"),
        ({"deadline": math.nan}, "deadline"),
        ({"inconclusive": "wait"}, "inconclusive"),
        ({"metric": {"": {"max": 1}}}, "metric"),
        ({"metric": {"rmse": {}}}, "needs `max`, `min` or `better_than`"),
        ({"metric": {"rmse": {"maximum": 1}}}, "maximum"),
        ({"metric": {"rmse": {"max": math.inf}}}, "max"),
        ({"metric": {"rmse": {"max": "60"}}}, "max"),
        ({"metric": {"rmse": {"max": 1, "min": 2}}}, "nothing could pass"),
        ({"metric": {"rmse": {"max": 1, "tolerance": 1}}}, "`tolerance` means nothing without"),
        ({"metric": {"rmse": {"max": 1, "relative_tolerance": 1}}}, "`relative_tolerance` means nothing"),
        ({"metric": {"rmse": {"max": 1, "lower_is_better": True}}}, "`lower_is_better` means nothing"),
        ({"metric": {"rmse": BETTER}}, "needs `lower_is_better`"),
        ({"metric": {"rmse": BETTER | {"min": 0, "max": 1}}}, "needs `lower_is_better`"),
        ({"metric": {"rmse": BETTER | {"max": 1, "tolerance": -1}}}, "tolerance"),
        ({"metric": {"rmse": BETTER | {"max": 1, "tolerance": 1, "relative_tolerance": 1}}}, "not both"),
        ({"metric": {"rmse": {"better_than": "yesterday", "lower_is_better": True}}}, "champion"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(plan: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        GatePlan.model_validate(plan)


def test_a_plan_is_read_again_as_it_was_written() -> None:
    plan = GatePlan(metric={"rmse": MetricBound(max=60, better_than="champion", relative_tolerance=0.1)})
    assert GatePlan.model_validate_json(plan.model_dump_json()) == plan
