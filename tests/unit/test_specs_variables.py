"""A request's parameters over a spec's `env`, and the names that nobody may set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.errors import InvalidRequest
from router.core.variables import (
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    experiment_of,
    merge_parameters,
    registered_model_of,
)


def refusal(parameters: dict[str, object]) -> str:
    with pytest.raises(InvalidRequest) as caught:
        merge_parameters({"KEPT": "1"}, parameters)
    return caught.value.message


def test_parameters_are_laid_over_the_env_as_text() -> None:
    env, applied = merge_parameters(
        {"KEPT": "1", "CHANGED": "old"}, {"CHANGED": "new", "INT": 3, "FLOAT": 0.1, "YES": True, "NO": False}
    )
    assert applied == {"CHANGED": "new", "INT": "3", "FLOAT": "0.1", "YES": "true", "NO": "false"}
    assert env == {"KEPT": "1", **applied}


def test_a_parameter_of_null_takes_the_variable_away() -> None:
    env, applied = merge_parameters({"KEPT": "1", "GONE": "x"}, {"GONE": None, "NEVER_THERE": None})
    assert env == {"KEPT": "1"}
    assert applied == {"GONE": None, "NEVER_THERE": None}


@pytest.mark.parametrize("parameters", [None, {}])
def test_no_parameters_change_nothing(parameters: dict[str, object] | None) -> None:
    assert merge_parameters({"A": "1"}, parameters) == ({"A": "1"}, {})


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "SERVE_PORT"),
        *("GIT_CONFIG_COUNT", "GIT_PYTHON_GIT_EXECUTABLE", "http_proxy", "HTTPS_PROXY", "Path", "HOME"),
        *("LD_PRELOAD", "PYTHONPATH", "SWITCHYARD_WORKLOAD", "BASH_ENV"),
    ],
)
@pytest.mark.parametrize("value", ["x", None])
def test_reserved_names_may_neither_be_set_nor_unset(name: str, value: str | None) -> None:
    assert (
        refusal({name: value})
        == f"parameters.{name}: this variable is reserved for the router and may not be set"
    )


@pytest.mark.parametrize(
    "parameters",
    [{f"A{number}": "x" * 90_000 for number in range(12)}, {f"A{number}": "" for number in range(1001)}],
    ids=["few and long", "many and short"],
)
def test_more_than_a_process_can_be_given_is_refused(parameters: dict[str, object]) -> None:
    said = refusal(parameters)
    assert "bytes of environment, more than 1000000" in said or "there are 1001, more than 1000" in said


@pytest.mark.parametrize("name", ["", "A B", "A=B", "1A", "A\n", "A\0", "é", "A" * 257])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    said = refusal({name: "x"})
    assert said.startswith("parameters.")
    assert "name" in said
    assert said.isprintable()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([1], "must be text, a number, true, false or null"),
        ({"a": 1}, "must be text, a number, true, false or null"),
        (float("nan"), "must be a finite number"),
        (float("inf"), "must be a finite number"),
        pytest.param(10**5000, "must be a finite number that can be written out", id="5001 digits"),
        ("a\nb", "a value may not contain newlines or NUL"),
        ("a\rb", "a value may not contain newlines or NUL"),
        ("a\0b", "a value may not contain newlines or NUL"),
        ("\ud83d", "the value is not valid Unicode"),
        ("x" * 100_001, "the value is longer than 100000 bytes"),
    ],
)
def test_values_that_cannot_be_passed_on_are_refused_by_path(value: object, complaint: str) -> None:
    assert refusal({"FINE": 1, "X": value}).startswith(f"parameters.X: {complaint}")


def test_all_wrong_parameters_are_named_at_once() -> None:
    said = refusal({"PATH": "x", "FINE": 1, "LIST": []})
    assert [part.split(":")[0] for part in said.split("; ")] == ["parameters.PATH", "parameters.LIST"]


@pytest.mark.parametrize("name", ["../x", "a/b", "a:1", "%2e%2e", "..", "a\\b", "x" * 256])
def test_a_parameter_cannot_make_a_model_name_that_is_a_path(name: str) -> None:
    assert refusal({"REGISTERED_MODEL_NAME": name}).startswith(
        "parameters.REGISTERED_MODEL_NAME: a model's name"
    )


def test_experiment_and_model_name_follow_the_merged_env() -> None:
    env, _ = merge_parameters(
        {"MLFLOW_EXPERIMENT": "a", "REGISTERED_MODEL_NAME": "A"},
        {"MLFLOW_EXPERIMENT": None, "REGISTERED_MODEL_NAME": "My model 2"},
    )
    assert (experiment_of(env, "forest"), registered_model_of(env)) == ("forest", "My model 2")


NAMES = st.text(max_size=12) | st.sampled_from(
    [*RESERVED_NAMES, *(f"{p}X" for p in RESERVED_PREFIXES), "A", "B"]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.none())


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_what_is_accepted_is_text_that_a_process_can_be_given(parameters: dict[str, object]) -> None:
    try:
        env, applied = merge_parameters({"KEPT": "1"}, parameters)
    except InvalidRequest:
        return
    assert set(applied) == set(parameters)
    for name, value in env.items():
        assert name not in RESERVED_NAMES
        assert not name.startswith(RESERVED_PREFIXES)
        assert not set("=\n\r\0") & set(name)
        assert not set("\n\r\0") & set(value)
        assert f"{name}={value}".encode()
