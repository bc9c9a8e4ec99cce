"""The README's calls, pasted in order against a stack on which a first `make demo` has just ended.

A README that is not run goes stale in silence. What it shows as an answer may leave fields out; what it shows
must be there, with the same value, but for what differs from run to run: ids, times, ports and measurements.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from scripts.service_commands import ROOT, service_environment
from tests.services.environments import share_environments
from tests.services.mlflow_server import MlflowServer, run_mlflow_server
from tests.services.yard import Yard, run_yard

README = ROOT / "README.md"
TRAINER = "sklearn-model-1"
DEADLINE_SECONDS = 300
BETWEEN = "\x1e"  # printed after the output of each command

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# An id, a hash, a number: whatever differs from run to run. Words stay.
VARYING = re.compile(r"(?<![a-z0-9])[0-9a-f]{8,}(?![a-z0-9])|[0-9]+")


@dataclass(frozen=True)
class Call:
    command: str
    kind: str  # of what is shown as its answer
    shown: str


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Of its own: the README counts the versions of its model from 1."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def yard(mlflow: MlflowServer) -> Iterator[Yard]:
    """As `make demo` leaves it."""
    index = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))}
    settings = {**index, "SPECS_PATH": str(ROOT / "specs"), "PUBLIC_HOST": "localhost"}
    with run_yard(mlflow.url, settings) as yard:
        share_environments(yard.state)
        yard.start()
        assert yard.post(f"/admin/train_then_roll/{TRAINER}")["version"] == 1
        yield yard


def test_the_calls_of_the_readme_answer_as_it_shows(yard: Yard, mlflow: MlflowServer) -> None:
    calls = read_calls(README.read_text())
    assert len(calls) > 10
    ports = {"8000": yard.router_url, "9000": yard.public_url, "9010": mlflow.url}
    answers = run_in_one_shell([call.command for call in calls], ports)
    for call, answer in zip(calls, answers, strict=True):
        compare = compare_json if call.kind == "json" else compare_text
        problem = compare(call.shown, answer)
        assert problem is None, f"{call.command}\nanswers\n{answer}\nbut the README differs: {problem}"


# --- reading and running ---------------------------------------------------------------------------------


def read_calls(readme: str) -> list[Call]:
    """Of the section `The calls`: each `sh` block with the block after it, which shows the answer."""
    section = readme.partition("\n## The calls\n")[2].partition("\n## ")[0]
    blocks = BLOCK.findall(section)
    kinds = [kind for kind, _ in blocks]
    assert kinds[::2] == ["sh"] * (len(blocks) // 2), f"not each call is followed by its answer: {kinds}"
    assert set(kinds[1::2]) <= {"json", "text"}
    return [
        Call(command, kind, shown)
        for (_, command), (kind, shown) in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def run_in_one_shell(commands: list[str], ports: dict[str, str]) -> list[str]:
    """What each prints. Like a person's terminal, the shell keeps variables from one to the next."""
    script = f"printf '{BETWEEN}'\n".join(f"{command}\n" for command in commands)
    for port, url in ports.items():
        script = re.sub(rf"\blocalhost:{port}\b", f"localhost:{url.rpartition(':')[2]}", script)
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        env=service_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout.split(BETWEEN)


# --- comparing -------------------------------------------------------------------------------------------


def compare_json(shown: str, answer: str) -> str | None:
    """What is wrong with what is shown, None if nothing is. Several answers may follow one another."""
    wanted, found = read_values(shown), read_values(answer)
    if len(wanted) != len(found):
        return f"there are {len(found)} answers, not {len(wanted)}"
    problems = [compare_values(*pair, "answer") for pair in zip(wanted, found, strict=True)]
    return next((problem for problem in problems if problem), None)


def read_values(text: str) -> list[object]:
    decoder, values, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values


def compare_values(shown: object, found: object, path: str) -> str | None:
    if type(shown) is not type(found):
        return f"{path} is {found!r}"
    if isinstance(shown, dict) and isinstance(found, dict):
        missing = sorted(shown.keys() - found.keys())
        if missing:
            return f"{path} has no {', '.join(missing)}"
        problems = [compare_values(shown[key], found[key], f"{path}.{key}") for key in shown]
        return next((problem for problem in problems if problem), None)
    if isinstance(shown, list) and isinstance(found, list):
        if len(shown) != len(found):
            return f"{path} has {len(found)} elements"
        problems = [compare_values(*pair, f"{path}[]") for pair in zip(shown, found, strict=True)]
        return next((problem for problem in problems if problem), None)
    if isinstance(shown, float):
        return None  # a measurement, or a prediction of another library's version
    same = steady(shown) == steady(found) if isinstance(shown, str) else shown == found
    return None if same else f"{path} is {found!r}"


def compare_text(shown: str, answer: str) -> str | None:
    """Every line that is shown is somewhere in the answer."""
    found = {steady(line) for line in answer.splitlines()}
    missing = [line for line in shown.splitlines() if steady(line) not in found]
    return f"no line is like {missing[0]!r}" if missing else None


def steady(text: object) -> str:
    return VARYING.sub("#", str(text))
