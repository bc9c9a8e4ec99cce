"""What a spec file may say, and how its mistakes are named."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.spec_text import Problem
from router.core.specs import InvalidSpecFile, Resources, TrainerSpec, parse_specs

FULL = """\
forest:
  trainer_image: trainer:1
  image_options: {cpu: trainer:cpu, gpu: trainer:gpu}
  serve_image: server:1
  serve_image_options: {gpu: server:gpu}
  source: model-images/forest
  timeout: 1800
  gpus: all
  resources: {cpus: 1.5, memory: 512m, pids: 200, required: false}
  env:
    MLFLOW_EXPERIMENT: trees
    REGISTERED_MODEL_NAME: Forest
    N_ESTIMATORS: 200
linear:
  source: model-images/linear
"""


def read(text: str, **variables: str) -> dict[str, TrainerSpec]:
    return parse_specs(text, "specs/a.yaml", variables)


def complaints(text: str, file: str = "specs/a.yaml", **variables: str) -> list[str]:
    with pytest.raises(InvalidSpecFile) as caught:
        parse_specs(text, file, variables)
    lines = [str(problem) for problem in caught.value.problems]
    assert caught.value.message.splitlines()[: len(lines)] == lines[:20]
    return lines


def test_a_file_holds_several_trainers_with_all_their_fields() -> None:
    specs = read(FULL)
    assert specs["forest"] == TrainerSpec(
        name="forest",
        file="specs/a.yaml",
        line=1,
        trainer_image="trainer:1",
        image_options={"cpu": "trainer:cpu", "gpu": "trainer:gpu"},
        serve_image="server:1",
        serve_image_options={"gpu": "server:gpu"},
        source="model-images/forest",
        timeout=1800,
        gpus="all",
        resources=Resources(cpus=1.5, memory=512 * 1024 * 1024, pids=200, required=False),
        env={"MLFLOW_EXPERIMENT": "trees", "REGISTERED_MODEL_NAME": "Forest", "N_ESTIMATORS": "200"},
    )
    assert specs["linear"].where == "specs/a.yaml, line 14"


def test_experiment_and_model_name_are_those_in_env() -> None:
    specs = read(FULL)
    assert (specs["forest"].experiment, specs["forest"].registered_model_name) == ("trees", "Forest")
    assert (specs["linear"].experiment, specs["linear"].registered_model_name) == ("linear", None)


def test_a_json_file_is_read_like_yaml_and_may_be_indented_with_tabs() -> None:
    text = json.dumps({"forest": {"source": "x", "env": {"N": 3, "TEXT": "a/\U0001f600"}}}, indent="\t")
    specs = parse_specs(text.replace("/", "\\/"), "a.json", {})
    assert specs["forest"].env == {"N": "3", "TEXT": "a/\U0001f600"}


def test_fields_left_out_or_null_have_their_defaults() -> None:
    assert read("a:\nb: {timeout: null, env: null, gpus: null, resources: null, source: ~}\n") == {
        "a": TrainerSpec(name="a", file="specs/a.yaml", line=1),
        "b": TrainerSpec(name="b", file="specs/a.yaml", line=2),
    }


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "{}"])
def test_a_file_without_trainers_is_a_file_without_trainers(text: str) -> None:
    assert read(text) == {}


@pytest.mark.parametrize(
    ("written", "passed_on"),
    [
        ("200", "200"),
        ("1.10", "1.10"),
        ("1e-3", "1e-3"),
        ("007", "007"),
        ("0x1F", "0x1F"),
        ("-0.5", "-0.5"),
        ("true", "true"),
        ("False", "false"),
        ("no", "no"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("'  spaced '", "  spaced "),
        ("''", ""),
        ("[1, two, {x: 1.5, y: null, z: true}]", '[1, "two", {"x": 1.5, "y": null, "z": true}]'),
        ("{}", "{}"),
        ('["\\n"]', '["\\n"]'),
    ],
)
def test_values_in_env_become_text(written: str, passed_on: str) -> None:
    assert read(f"a: {{env: {{X: {written}}}}}")["a"].env == {"X": passed_on}


def test_a_variable_that_is_null_is_not_set() -> None:
    assert read("a:\n  env:\n    X:\n    Y: null\n    Z: 1\n")["a"].env == {"Z": "1"}


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        ("4194304", 4194304),
        ("512m", 512 << 20),
        ("2g", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("'8388608b'", 8 << 20),
    ],
)
def test_memory_is_bytes_or_a_size_in_steps_of_1024(written: str, bytes_: int) -> None:
    assert read(f"a: {{resources: {{memory: {written}}}}}")["a"].resources.memory == bytes_


def test_a_spec_may_name_the_endpoint_that_its_versions_go_to() -> None:
    assert read("a: {endpoint: fraud-eu.2}")["a"].endpoint == "fraud-eu.2"
    assert read("a: {}")["a"].endpoint is None


@pytest.mark.parametrize(("written", "gpus"), [("all", "all"), ("2", "2"), ("'2'", "2"), ("0", None)])
def test_gpus_are_all_or_a_number(written: str, gpus: str | None) -> None:
    assert read(f"a: {{gpus: {written}}}")["a"].gpus == gpus


def test_a_volume_has_a_folder() -> None:
    assert read("a: {volumes: {data: /in/data:ro}}")["a"].mounts == {"data": "/in/data"}


def test_resources_survive_the_way_through_json() -> None:
    for resources in (Resources(), Resources(cpus=2, memory=8 << 20, pids=1, required=False)):
        assert Resources.model_validate_json(resources.model_dump_json()) == resources


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sourc: x", "forest.sourc: there is no such field; the fields are trainer_image,"),
        ("trainer_image: 3", "forest.trainer_image: must be text (a number needs quotes)"),
        ("serve_image: [x]", "forest.serve_image: must be text"),
        ("source: ''", "forest.source: must be a name"),
        ('source: "a\\nb"', "forest.source: must be a name"),
        ("image_options: x", "forest.image_options: must be a map"),
        ("image_options: {cpu: 1}", "forest.image_options.cpu: must be text"),
        ("timeout: soon", "forest.timeout: must be a number"),
        ("timeout: true", "forest.timeout: must be a number"),
        ("timeout: '60'", "forest.timeout: must be a number"),
        ("timeout: 0", "forest.timeout: Input should be greater than 0"),
        ("timeout: .inf", "forest.timeout: must be a finite number"),
        ("endpoint: ../etc", "forest.endpoint: must be the name of an endpoint"),
        ("endpoint: 7", "forest.endpoint: must be text (a number needs quotes)"),
        ("volumes: {/etc: /etc:ro}", "forest.volumes./etc: must be the name of a volume, not a path"),
        ("volumes: {data: /data}", "forest.volumes.data: must be a folder in the container, and read-only"),
        (
            "volumes: {data: /data:rw}",
            "forest.volumes.data: must be a folder in the container, and read-only",
        ),
        ("volumes: {data: /a/../b:ro}", "forest.volumes.data: must be a folder in the container"),
        ("volumes: {data: /tmp:ro}", "forest.volumes.data: must be a folder in the container"),
        ("volumes: {data: /a:ro, more: /a:ro}", "forest.volumes: two volumes have one folder"),
        ("gpus: some", "forest.gpus: must be `all` or a number"),
        ("gpus: true", "forest.gpus: must be `all` or a number"),
        ("gpus: -1", "forest.gpus: must be `all` or a number"),
        ("env: [A]", "forest.env: must be a map"),
        ("env: {PATH: /bin}", "forest.env.PATH: this variable is reserved"),
        ("env: {MLFLOW_RUN_ID: 1}", "forest.env.MLFLOW_RUN_ID: this variable is reserved"),
        ("env: {MLFLOW_TRACKING_URI: 1}", "forest.env.MLFLOW_TRACKING_URI: this variable is reserved"),
        ("env: {SERVE_PORT: null}", "forest.env.SERVE_PORT: this variable is reserved"),
        ("env: {LD_PRELOAD: x}", "forest.env.LD_PRELOAD: this variable is reserved"),
        ("env: {PYTHONPATH: x}", "forest.env.PYTHONPATH: this variable is reserved"),
        ("env: {'': x}", "forest.env.(empty): the name of a variable may not be empty"),
        ('env: {"A\\0": x}', "forest.env.A\\x00: a variable's name has letters"),
        ("env: {A=B: x}", "forest.env.A=B: a variable's name has letters"),
        ('env: {A: "x\\ny"}', "forest.env.A: a value may not contain newlines or NUL"),
        ('env: {A: "x\\0y"}', "forest.env.A: a value may not contain newlines or NUL"),
        ("env: {A: [.nan]}", "forest.env.A.0: must be a finite number"),
        ("env: {REGISTERED_MODEL_NAME: ../x}", "forest.env.REGISTERED_MODEL_NAME: a model's name may not"),
        ("resources: 3", "forest.resources: must be a map of fields"),
        ("resources: {cpu: 1}", "forest.resources.cpu: there is no such field; the fields are cpus, memory,"),
        ("resources: {cpus: true}", "forest.resources.cpus: must be a number"),
        ("resources: {cpus: 0}", "forest.resources.cpus: Input should be greater than 0"),
        ("resources: {memory: 2q}", "forest.resources.memory: must be bytes, or a size such as"),
        ("resources: {memory: 1k}", "forest.resources.memory: Input should be greater than or equal to"),
        ("resources: {pids: 1.5}", "forest.resources.pids: must be a whole number"),
        ("resources: {required: 'no'}", "forest.resources.required: must be true or false"),
        ("rollout: {bak: 1}", "forest.rollout.bak: there is no such field; the fields are strategy,"),
        (
            "rollout: {strategy: canary, steps: [{weight: 5, hol: 1}]}",
            "forest.rollout.steps.0.hol: there is no such field; the fields are weight, hold",
        ),
        ("rollout: {strategy: canary, steps: [5, 101]}", "forest.rollout.steps.1.weight: Input should be"),
        ("rollout: {strategy: canary, steps: [50, 5]}", "forest.rollout: `steps` are out of order"),
        ("rollout: {sticky: true}", "forest.rollout: `sticky` belongs to the strategy canary"),
        ("gates: {chalenge: {}}", "forest.gates.chalenge: there is no such field; the fields are signature,"),
        ("gates: {signature: 1}", "forest.gates.signature: must be true or false"),
        ("gates: {metric: {rmse: {mx: 60}}}", "forest.gates.metric.rmse.mx: there is no such field; the"),
        ("gates: {metric: {rmse: {max: low}}}", "forest.gates.metric.rmse.max: must be a number"),
        ("gates: {metric: {rmse: {max: 1, min: 2}}}", "forest.gates.metric.rmse: `min` is above `max`"),
        ("gates: {metric: {rmse: 60}}", "forest.gates.metric.rmse: must be a map of fields"),
        ("gates: {deadline: 0}", "forest.gates.deadline: Input should be greater than 0"),
        ("source: !secret x", "forest.source: the tag !secret is not known here"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(line: str, complaint: str) -> None:
    (said,) = complaints(f"# a comment\nforest:\n  {line}\n")
    assert said.startswith(f"specs/a.yaml, line 3: {complaint}")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: [1\n", "specs/a.yaml, line 3: not YAML: "),
        ("a:\n\t- x\n", "specs/a.yaml, line 2: not YAML: "),
        ("a: {}\n---\nb: {}\n", "specs/a.yaml, line 2: not YAML: expected a single document"),
        ("a: {source: *x}\n", "specs/a.yaml, line 1: not YAML: found undefined alias"),
        ("a: {}\nb: \x01\n", "specs/a.yaml, line 2: the character U+0001 may not stand here"),
        ("- a\n", "specs/a.yaml, line 1: the top level must be a map of trainer names"),
        ("? [a]\n: {}\n", "specs/a.yaml, line 1: a key must be a word"),
        ("a: {}\nb: 5\n", "specs/a.yaml, line 2: b: must be a map of fields"),
        ("a: {}\n../b: {}\n", "specs/a.yaml, line 2: ../b: a trainer's name has up to 63"),
        ('"a\\nb": {}\n', "specs/a.yaml, line 1: a\\nb: a trainer's name has"),
        ("'': {}\n", "specs/a.yaml, line 1: (empty): a trainer's name has"),
        ("a: &a [*a]\n", "specs/a.yaml: nested deeper than"),
        ("a: &a {<<: *a}\n", "specs/a.yaml: nested deeper than"),
        ("[" * 5000, "specs/a.yaml: nested too deeply"),
        ("a: {<<: 3}\n", "specs/a.yaml, line 1: a: `<<` takes a map"),
    ],
)
def test_text_that_cannot_be_read_is_named_with_its_line(text: str, complaint: str) -> None:
    (said,) = complaints(text)
    assert said.startswith(complaint)


def test_broken_json_is_named_with_its_line() -> None:
    assert complaints('{"a":\n  {"source" "x"}}', "a.json") == [
        "a.json, line 2: not JSON: Expecting ':' delimiter"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: {}\nb: {}\na: {}\n", "specs/a.yaml, line 3: a: this key stands here twice, first on line 1"),
        (
            "a:\n  source: x\n  source: x\n",
            "specs/a.yaml, line 3: a.source: this key stands here twice, first on",
        ),
        ("a:\n  env:\n    X: 1\n    'X': 2\n", "specs/a.yaml, line 4: a.env.X: this key stands here twice"),
        (
            "a: {env: {X: [{y: 1,\n y: 2}]}}\n",
            "specs/a.yaml, line 2: a.env.X.0.y: this key stands here twice",
        ),
    ],
)
def test_a_key_given_twice_is_refused_at_any_level(text: str, complaint: str) -> None:
    (said,) = complaints(text)
    assert said.startswith(complaint)


def test_all_mistakes_of_a_file_are_named_at_once_in_the_order_of_their_lines() -> None:
    said = complaints("a:\n  gpus: x\n  env: {PATH: 1, LD_X: 2}\n  timeout: x\n../b: {}\nc:\n  nope: 1\n")
    assert [line.split(":")[1].strip() for line in said] == [
        "a.gpus",
        "a.env.PATH",
        "a.env.LD_X",
        "a.timeout",
        "../b",
        "c.nope",
    ]
    assert [int(re.findall(r"line (\d+)", line)[0]) for line in said] == [2, 3, 3, 4, 5, 7]


def test_a_long_list_of_mistakes_is_cut_short_and_says_so() -> None:
    text = "".join(f"t{number}: {{nope: 1}}\n" for number in range(25))
    with pytest.raises(InvalidSpecFile) as caught:
        read(text)
    assert len(caught.value.problems) == 25
    assert caught.value.message.splitlines()[-1] == "and 5 more"


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    rows = ["a0: &a0 {env: {X: [1, 1, 1, 1, 1, 1, 1, 1, 1]}}"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    (said,) = complaints("\n".join(rows))
    assert said == "specs/a.yaml: more than 20000 values (do aliases multiply?)"


def test_merged_maps_give_way_to_what_is_written_beside_them() -> None:
    specs = read(
        "base: &base {source: x, timeout: 5, env: {A: 1}}\n"
        "slow: &slow {timeout: 9}\n"
        "one:\n  <<: *base\n  timeout: 7\n"
        "two:\n  <<: [*slow, *base]\n"
    )
    assert (specs["one"].source, specs["one"].timeout, specs["one"].env) == ("x", 7, {"A": "1"})
    assert (specs["two"].source, specs["two"].timeout) == ("x", 9)


def test_secrets_in_env_are_kept_out_of_representations() -> None:
    assert "hunter2" not in repr(read("a: {env: {TOKEN: hunter2}}")["a"])


def test_every_spec_of_this_repository_is_right() -> None:
    folder = Path(__file__).parents[2] / "specs"
    files = [path for path in folder.iterdir() if path.suffix in {".yaml", ".yml", ".json"}]
    assert files
    for path in files:
        for spec in parse_specs(path.read_text("utf-8"), path.name, {}).values():
            assert spec.source is None or (folder.parent / spec.source).is_dir(), spec.where


PIECES = [*"ab:{}[]-'\"\n ,&*<?!|>#$%@`\t\\0\u2028\x01é", "a: ", "env: ", "${", "<<: ", "\n  "]
SPEC_LIKE = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60)


@given(SPEC_LIKE, st.sampled_from(["x.yaml", "x.json"]))
def test_whatever_a_file_says_it_is_either_read_or_refused(text: str, file: str) -> None:
    problems: tuple[Problem, ...] = ()
    specs: dict[str, TrainerSpec] = {}
    try:
        specs = parse_specs(text, file, {})
    except InvalidSpecFile as error:
        problems = error.problems or (Problem("nothing is said to be wrong", None, "", ""),)
    assert all(problem.file == file and (problem.line or 1) >= 1 for problem in problems)
    assert all(spec.name == name for name, spec in specs.items())


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=40))
def test_text_in_env_arrives_as_it_was_meant(text: str) -> None:
    written = json.dumps({"a": {"env": {"X": text.replace("$", "$$")}}})
    assert parse_specs(written, "a.json", {})["a"].env == {"X": text}
