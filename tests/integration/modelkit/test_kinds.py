"""Every kind of model beside MLflow's own server: whatever a request holds, both answer alike."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.service_commands import MLFLOW, mlflow_environment
from tests.integration.modelkit.serving import ModelServer
from tests.integration.modelkit.tracking import Tracking
from tests.services.model_environment import model_environment

Json = Any

HERE = Path(__file__).parent / "kinds"
NUMBERS = ["width", "height", "weight"]
MIXED_COMPILED = {"forest-mixed", "logistic-mixed", "logistic-strict", "chances", "linear-gaps"}
MIXED = MIXED_COMPILED | {"own-mixed"}
SWITCHED = {"forest-switch"}
NATIVE = {"histogram", "vote", "own-code", "own-values", "own-forest", "own-mixed"}
COMPILED = {
    "forest",
    "forest-words",
    "extra-trees",
    "tree",
    "boosting",
    "boosting-flag",
    "ada",
    "linear",
    "imputed",
    "polynomial",
    "components",
    "logistic",
    "bayes",
    "neighbours",
    "vectors",
    "neurons",
    "stack",
} | (MIXED_COMPILED | SWITCHED)

pytestmark = pytest.mark.xdist_group("kinds")  # the models are dear: one worker is enough


@dataclass(frozen=True)
class Kinds:
    verdicts: dict[str, str]
    ours: ModelServer
    theirs: ModelServer

    def ask(self, server: ModelServer, kind: str, content: str, media_type: str) -> tuple[int, Json]:
        headers = {"content-type": media_type}
        answer = server.client.post(f"/{kind}/invocations", content=content.encode(), headers=headers)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def kinds(
    model_python: Path, tracking: Tracking, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kinds]:
    environment = model_environment(tracking.url)
    published = subprocess.run(
        [str(model_python), str(HERE / "publish.py")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert published.returncode == 0, published.stderr
    verdicts = json.loads(published.stdout.splitlines()[-1])

    def serve(python: Path, program: str, variables: dict[str, str]) -> ModelServer:
        return ModelServer(
            lambda port: [str(python), str(HERE / program), str(port), *verdicts],
            lambda _port: variables,
            tmp_path_factory.mktemp("kinds"),
            ping=f"/{next(iter(verdicts))}/ping",
        )

    mlflow = {**mlflow_environment(), "MLFLOW_TRACKING_URI": tracking.url}
    ours = serve(
        model_python, "serve.py", {**environment, "SERVE_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}
    )
    theirs = serve(MLFLOW.parent / "python", "serve_mlflow.py", mlflow)
    with ours, theirs:
        yield Kinds(verdicts, ours, theirs)


def test_what_can_be_compiled_is_proven_and_what_cannot_says_why(kinds: Kinds) -> None:
    assert {kind for kind, verdict in kinds.verdicts.items() if verdict == "proven"} == COMPILED
    for kind in NATIVE:
        assert "not convertible: " in kinds.verdicts[kind]


@pytest.mark.parametrize("kind", sorted(COMPILED | NATIVE))
def test_the_server_says_which_way_it_answers(kinds: Kinds, kind: str) -> None:
    about = kinds.ours.client.get(f"/{kind}/metadata").json()
    assert about["path"] == ("compiled" if kind in COMPILED else "native")
    assert about["reason"]


@pytest.mark.parametrize("kind", ["own-forest", "own-mixed", "forest", "forest-words"])
def test_requests_that_come_together_are_answered_together_and_as_if_each_were_alone(
    kinds: Kinds, kind: str
) -> None:
    about = kinds.ours.client.get(f"/{kind}/metadata").json()
    together = "requests that come together are answered together"
    assert kind in COMPILED or about["reason"].endswith(together)
    names, word = ([*NUMBERS, "colour"], ["red"]) if kind in MIXED else (NUMBERS, [])
    bodies = [
        write_body(names, [[place, 10 - place, 7.5, *word]] * (place % 3 + 1), "inputs", "none")
        for place in range(40)
    ]
    bodies[5] = write_body(names, [[1e300, 1, 1, *word]], "inputs", "none")  # which the model refuses
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda body: kinds.ask(kinds.ours, kind, *body), bodies))
    for body, (status, answer) in zip(bodies, answers, strict=True):
        expected_status, expected = kinds.ask(kinds.theirs, kind, *body)
        assert status == expected_status
        if status == 200:
            assert_close(answer["predictions"], expected["predictions"], body[0])
    assert answers[5][0] == 400


def test_a_row_without_any_value_is_answered_as_mlflow_answers_it(kinds: Kinds) -> None:
    """The compiled imputer fails on it, though it was proven for each value alone."""
    body = write_body(NUMBERS, [[None, None, None]], "dataframe_records", "none")
    status, answer = kinds.ask(kinds.ours, "imputed", *body)
    expected_status, expected = kinds.ask(kinds.theirs, "imputed", *body)
    assert status == expected_status == 200
    assert_close(answer["predictions"], expected["predictions"], body[0])


def test_a_list_of_several_kinds_of_values_is_told_as_it_is(kinds: Kinds) -> None:
    body = write_body(NUMBERS, [[-1, 1, 1], [1, 1, 1]], "dataframe_split", "none")
    assert kinds.ask(kinds.ours, "own-values", *body) == (200, {"predictions": ["none", 7]})
    assert kinds.ask(kinds.theirs, "own-values", *body) == (200, {"predictions": ["none", 7]})


def test_samples_are_answered_with_the_likeliest_class_of_a_model_that_tells_chances(kinds: Kinds) -> None:
    record = {"width": 10, "height": 10, "weight": 10, "colour": "red"}
    _, told = kinds.ask(
        kinds.ours, "chances", json.dumps({"dataframe_records": [record]}), "application/json"
    )
    answer = kinds.ours.client.post("/chances/predict", json={"samples": [record]})
    (chances,) = told["predictions"]
    assert answer.status_code == 200
    (place,) = answer.json()["class_id"]
    assert chances[place] == max(chances)
    assert answer.json()["class_label"] == [["large", "medium", "small"][place]]


plain = st.floats(-100, 100).map(lambda value: round(value, 3))
odd: st.SearchStrategy[Json] = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([None, True, False, "7.5", "old", "", [1], {}, 1e39, 2**53 + 1]),
)
words = st.sampled_from(["red", "green", "blue"])
odd_words = st.sampled_from(["pink", "", "nan", "None", "éred", None, 3, True, "Red", ["red"]])
odd_switches = st.sampled_from([None, 0, 1, 1.0, "true", "", [True]])


@st.composite
def rows(draw: st.DrawFn, kind: str) -> tuple[list[str], list[list[Json]]]:
    """Columns and rows, most of them as the model wants them."""
    is_odd = draw(st.booleans())
    numbers = st.one_of(plain, plain, plain, odd) if is_odd else plain
    names = list(NUMBERS)
    cells = [numbers] * len(NUMBERS)
    if kind in SWITCHED:
        names.append("painted")
        cells.append(st.one_of(st.booleans(), st.booleans(), odd_switches) if is_odd else st.booleans())
    if kind in MIXED:
        names.append("colour")
        cells.append(st.one_of(words, words, odd_words) if is_odd else words)
    change = draw(st.sampled_from(["none", "none", "none", "order", "extra", "missing", "renamed"]))
    if change == "extra":
        names.append("shoe")
        cells.append(st.one_of(plain, words))
    table = draw(st.lists(st.tuples(*cells).map(list), min_size=0 if is_odd else 1, max_size=5))
    if change == "order":
        return names[::-1], [row[::-1] for row in table]
    if change == "missing":
        return names[1:], [row[1:] for row in table]
    if change == "renamed":
        return ["girth", *names[1:]], table
    return names, table


def write_body(names: list[str], table: list[list[Json]], form: str, params: Json) -> tuple[str, str]:
    records = [dict(zip(names, row, strict=True)) for row in table]
    if form == "csv":
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in (names, *table)]
        return "\n".join(lines), "text/csv"
    bodies = {
        "dataframe_split": {"columns": names, "data": table},
        "dataframe_records": records,
        "instances": records,
        "inputs": {name: [row[place] for row in table] for place, name in enumerate(names)},
    }
    key = {"inputs of one row": "inputs", "inputs of records": "inputs"}.get(form, form)
    body = {
        **bodies,
        "inputs of one row": records[0] if records else {},
        "inputs of records": records,
    }[form]
    extra = {} if params == "none" else {"params": params}
    return json.dumps({key: body, **extra}), "application/json"


FORMS = [
    "dataframe_split",
    "dataframe_records",
    "instances",
    "inputs",
    "inputs of one row",
    "inputs of records",
    "csv",
]


@pytest.mark.parametrize("kind", sorted(COMPILED | NATIVE))
def test_any_request_is_answered_as_mlflow_answers_it(kinds: Kinds, kind: str) -> None:
    @settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        drawn=rows(kind),
        form=st.sampled_from(FORMS),
        params=st.sampled_from(["none", "none", None, {}, {"depth": 3}]),
    )
    def compare(drawn: tuple[list[str], list[list[Json]]], form: str, params: Json) -> None:
        content, media_type = write_body(*drawn, form, params)
        status, answer = kinds.ask(kinds.ours, kind, content, media_type)
        expected_status, expected = kinds.ask(kinds.theirs, kind, content, media_type)
        if expected_status >= 500:  # MLflow fails; the request was at fault
            assert status == 400, content
            return
        assert status == expected_status, content
        if status != 200:
            assert answer["error_code"] == expected["error_code"], content
        else:
            assert_close(answer["predictions"], expected["predictions"], content)

    compare()


def assert_close(found: list[Json], expected: list[Json], content: str) -> None:
    assert len(found) == len(expected), content
    if expected and isinstance(expected[0], float | list):
        mean = 10.0  # of what these models answer with
        assert found == [pytest.approx(value, rel=1e-5, abs=1e-5 * mean) for value in expected], content
    else:
        assert found == expected, content
