"""How a strategy is written, and what cannot be meant."""

import math

import pytest
from pydantic import ValidationError

from router.core.strategies import DEFAULT_WEIGHTS, Strategy


def weights(**fields: object) -> list[float]:
    return [step.weight for step in Strategy.model_validate(fields).steps]


def test_without_a_word_it_is_all_at_once_with_a_watch_after_the_switch() -> None:
    plan = Strategy()
    assert not plan.gradual
    assert plan.bake > 0
    assert plan.analysis.enabled


def test_a_canary_without_steps_has_those_that_everybody_uses() -> None:
    assert weights(strategy="canary") == list(DEFAULT_WEIGHTS)


def test_linear_makes_equal_steps() -> None:
    assert weights(strategy="canary", steps={"linear": 4}) == [25, 50, 75, 100]


def test_a_step_holds_as_long_as_it_says_or_as_the_plan_says() -> None:
    plan = Strategy.model_validate(
        {"strategy": "canary", "steps": [{"weight": 5, "hold": 10}, 50, 100], "hold": 30}
    )
    assert [plan.hold_of(step) for step in (-1, 0, 1)] == [0, 10, 30]
    assert [plan.step_at(weight) for weight in (0, 5, 49.9, 50, 100)] == [-1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"strategy": "canary", "steps": [-1, 100]}, "weight"),
        ({"strategy": "canary", "steps": [10, 101]}, "weight"),
        ({"strategy": "canary", "steps": [math.nan]}, "weight"),
        ({"strategy": "canary", "steps": [True]}, "weight"),
        ({"strategy": "canary", "steps": [0, 10]}, "steps"),
        ({"strategy": "canary", "steps": []}, "steps"),
        ({"strategy": "canary", "steps": [25, 10, 100]}, "out of order"),
        ({"strategy": "canary", "steps": [10, 10]}, "out of order"),
        ({"strategy": "canary", "steps": {"linear": 0}}, "linear"),
        ({"strategy": "canary", "steps": {"linear": 2.5}}, "linear"),
        ({"strategy": "canary", "steps": "linear"}, "steps"),
        ({"strategy": "blue_green", "steps": [10, 100]}, "steps"),
        ({"sticky": True}, "sticky"),
        ({"strategy": "rainbow"}, "strategy"),
        ({"bake": -1}, "bake"),
        ({"bake": math.inf}, "bake"),
        ({"promotion": "maybe"}, "promotion"),
        ({"analysis": {"inconclusive": "pass"}}, "inconclusive"),
        ({"stepz": [1]}, "stepz"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Strategy.model_validate(fields)
