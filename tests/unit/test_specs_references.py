"""References to variables in spec files: `${VAR}`, `${VAR:-default}` and `$$`."""

import pytest

from router.core.specs import InvalidSpecFile, TrainerSpec, parse_specs


def read(text: str, **variables: str) -> TrainerSpec:
    return parse_specs(text, "specs/a.yaml", variables)["a"]


def complaints(text: str, **variables: str) -> list[str]:
    with pytest.raises(InvalidSpecFile) as caught:
        parse_specs(text, "specs/a.yaml", variables)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("${SET}", "value"),
        ("x-${SET}-${SET}", "x-value-value"),
        ("${SET:-other}", "value"),
        ("${UNSET:-other}", "other"),
        ("${UNSET:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("$$SET and $${SET}", "$SET and ${SET}"),
        ("a $ b $SET 5$", "a $ b $SET 5$"),
        ("${TRICKY}", "${SET} $$"),
        ("${UNSET:-a:b/c $d}", "a:b/c $d"),
    ],
)
def test_references_are_expanded_once(written: str, expanded: str) -> None:
    spec = read(f"a: {{env: {{X: '{written}'}}}}", SET="value", EMPTY="", TRICKY="${SET} $$")
    assert spec.env == {"X": expanded}


def test_an_unquoted_reference_may_stand_for_a_number_or_truth_value() -> None:
    text = "a:\n  timeout: ${T:-60}\n  gpus: ${G}\n  resources:\n    required: ${R}\n"
    spec = read(text, G="2", R="false")
    assert (spec.timeout, spec.gpus, spec.resources.required) == (60, "2", False)


def test_a_reference_in_env_stays_text() -> None:
    text = "a:\n  env:\n    X: ${V}\n    Y:\n    - ${V}\n"
    assert read(text, V="1.0").env == {"X": "1.0", "Y": '["1.0"]'}


def test_an_unset_variable_is_named_with_file_line_and_key() -> None:
    (said,) = complaints("a:\n  source: x\n  env:\n    X: ${TOKEN}\n")
    assert said.startswith("specs/a.yaml, line 4: a.env.X: TOKEN is not set")
    assert said.endswith("write ${TOKEN:-default}")


@pytest.mark.parametrize("written", ["${", "${}", "${1A}", "${A-b}", "${A:b}", "${A", "${A:-b"])
def test_a_broken_reference_is_refused(written: str) -> None:
    (said,) = complaints(f"a:\n  env: {{X: '{written}'}}\n", A="1")
    assert said.startswith("specs/a.yaml, line 2: a.env.X: `${` begins no reference")


def test_values_of_variables_do_not_show_in_complaints() -> None:
    said = complaints("a: {env: {X: '${V}'}, gpus: '${V}', timeout: '${V}', source: '${V}'}", V="hunter2\nx")
    assert len(said) == 4
    assert "hunter2" not in " ".join(said)
