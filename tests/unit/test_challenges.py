"""What a `challenge` may ask for, and each contradiction by its name."""

from typing import Any

import pytest
from pydantic import ValidationError

from router.core.challenges import Challenge


def test_one_metric_is_enough() -> None:
    challenge = Challenge.model_validate({"metric": "rmse"})
    assert challenge.metric == ("rmse",)
    assert challenge.find_allowance(50.0) == 0.0


def test_a_challenge_comes_back_from_its_record_as_it_was() -> None:
    fields = {
        "metric": ["accuracy", "f1"],
        "relative_tolerance": 0.02,
        "data": "a/b.csv",
        "target": "churned",
    }
    challenge = Challenge.model_validate(fields)
    assert Challenge.model_validate_json(challenge.model_dump_json()) == challenge


def test_a_tolerance_is_in_the_metrics_unit_or_a_share_of_the_champions_value() -> None:
    assert Challenge.model_validate({"metric": "r2", "tolerance": 0.1}).find_allowance(-0.5) == 0.1
    assert Challenge.model_validate({"metric": "r2", "relative_tolerance": 0.1}).find_allowance(-0.5) == 0.05


def test_an_error_gains_as_it_falls_and_a_score_as_it_rises() -> None:
    assert Challenge.model_validate({"metric": "mae"}).find_gain("mae", 2.0, 3.0) == 1.0
    assert Challenge.model_validate({"metric": "r2"}).find_gain("r2", 0.5, 0.75) == -0.25


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "metric"),
        ({"metric": []}, "at least 1 item"),
        ({"metric": "roc_auc"}, "'balanced_accuracy'"),
        ({"metric": ["mae", "mae"]}, "named twice"),
        ({"metric": ["mae", "f1"]}, "mae are for numbers"),
        ({"metric": "mae", "tolerance": 1, "relative_tolerance": 0.1}, "`tolerance` or `relative_tolerance`"),
        ({"metric": "mae", "tolerance": -1}, "tolerance"),
        ({"metric": "mae", "tolerance": float("nan")}, "tolerance"),
        ({"metric": ["mae", "r2"], "tolerance": 1}, "`tolerance` is in one metric's unit"),
        ({"metric": ["mae", "rmse"], "max": 1}, "`max` is in one metric's unit"),
        ({"metric": "r2", "max": 1}, "r2 takes `min`"),
        ({"metric": "mae", "min": 1}, "mae takes `max`"),
        ({"metric": "mae", "max": -1}, "nothing could pass"),
        ({"metric": "accuracy", "min": 1.5}, "nothing could pass"),
        ({"metric": "mae", "target": "price"}, "`target` means nothing without `data`"),
        ({"metric": "mae", "data": "rows.csv"}, "`data` needs `target`"),
        ({"metric": "mae", "rows": 1}, "rows"),
        ({"metric": "mae", "rows": "100"}, "rows"),
        ({"metric": "mae", "champion": "x"}, "champion"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Challenge.model_validate(fields)


@pytest.mark.parametrize(
    "data",
    [
        "/etc/passwd.csv",
        "../rows.csv",
        "a/../../rows.csv",
        "a/..",
        "./rows.csv",
        "a//rows.csv",
        "a\\rows.csv",
        "~/\nrows.csv",
        "rows.csv\0",
        "rows.parquet",
        ".csv",
        "",
        "a" * 1025 + ".csv",
    ],
)
def test_only_a_plain_path_inside_the_folder_names_a_file(data: str) -> None:
    with pytest.raises(ValidationError, match="data"):
        Challenge.model_validate({"metric": "mae", "data": data, "target": "price"})
