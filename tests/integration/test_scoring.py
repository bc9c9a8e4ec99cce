"""The process that computes metrics: right answers, and a router that it can neither hold up nor mislead."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import to_thread

from router.engine.gates.scoring import Scorer, ScoringFailed
from scripts.service_commands import ROOT

pytestmark = pytest.mark.anyio

TRUTH = [1.0, 2.0, 4.0]


def play(script: str, *arguments: str, seconds: float = 60.0) -> Scorer:
    return Scorer((sys.executable, "-c", script, *arguments), seconds)


def answer(text: str) -> Scorer:
    return play("import sys; sys.stdout.write(sys.argv[1])", text)


async def test_metrics_of_numbers_are_those_of_scikit_learn() -> None:
    scores = await Scorer().score(
        ["rmse", "mae", "r2"], TRUTH, {"champion": TRUTH, "candidate": [1.0, 2.0, 1e300]}
    )
    assert scores["champion"] == {"rmse": 0.0, "mae": 0.0, "r2": 1.0}
    assert scores["candidate"] == {"rmse": None, "mae": pytest.approx(1e300 / 3), "r2": None}


async def test_classes_may_have_any_name() -> None:
    names = ["\ud800", "a\0", "a", "", "1" * 1_000_000]
    scores = await Scorer().score(["accuracy"], names * 200, {"candidate": ["a"] * 1000})
    assert scores == {"candidate": {"accuracy": 0.2}}


async def test_numbers_may_be_as_large_as_they_go() -> None:
    huge = [1.7e308, -1.7e308, 1.7e308]
    scores = await Scorer().score(["rmse", "mae", "r2"], TRUTH, {"candidate": huge})
    assert scores == {"candidate": {"rmse": None, "mae": None, "r2": None}}


async def test_metrics_of_classes_are_those_of_scikit_learn() -> None:
    scores = await Scorer().score(
        ["accuracy", "f1", "balanced_accuracy"],
        ["a", "a", "a", "b"],
        {"candidate": ["a", "a", "b", "b"], "champion": ["c"] * 4},
    )
    assert scores["candidate"] == pytest.approx({"accuracy": 0.75, "f1": 11 / 15, "balanced_accuracy": 5 / 6})
    assert scores["champion"] == {"accuracy": 0.0, "f1": 0.0, "balanced_accuracy": 0.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unreadable"),
        ("well", "unreadable"),
        ("[1]", "unreadable"),
        ('{"candidate": 3}', "unreadable"),
        ('{"candidate": {"mae": "much"}}', "unreadable"),
        ('{"candidate": {"mae": NaN}}', "unreadable"),
        ("[" * 100_000, "unreadable"),
        ('{"candidate": {}}', "something else than was asked"),
        ('{"candidate": {"mae": 1, "r2": 1}}', "something else than was asked"),
        ('{"candidate": {"mae": 1}, "champion": {"mae": 1}}', "something else than was asked"),
    ],
)
async def test_a_garbled_answer_is_no_score(text: str, reason: str) -> None:
    with pytest.raises(ScoringFailed, match=reason):
        await answer(text).score(["mae"], TRUTH, {"candidate": TRUTH})


async def test_a_process_that_fails_is_told_in_its_own_words() -> None:
    with pytest.raises(ScoringFailed, match=r"ended with 1: .*could not convert string to float"):
        await Scorer().score(["mae"], TRUTH, {"candidate": ["much", 1.0, 2.0]})
    with pytest.raises(ScoringFailed, match="ended with 3: "):
        await play("raise SystemExit(3)").score(["mae"], TRUTH * 100_000, {"candidate": TRUTH})
    with pytest.raises(ScoringFailed, match=r"cannot be started: .*No such file"):
        await Scorer(("/nowhere/python",)).score(["mae"], TRUTH, {"candidate": TRUTH})


async def test_a_process_that_hangs_is_killed_at_its_deadline(tmp_path: Path) -> None:
    mark = str(tmp_path)
    hanging = play("import signal, sys; print('{', flush=True); signal.pause()", mark, seconds=1.0)
    with pytest.raises(ScoringFailed, match="not computed within 1 s"):
        await hanging.score(["mae"], TRUTH, {"candidate": TRUTH})
    assert find_children(mark) == []


async def test_it_is_killed_with_the_gate_that_asked(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    script = "import pathlib, signal, sys; pathlib.Path(sys.argv[1]).write_text('yes'); signal.pause()"
    async with anyio.create_task_group() as group:
        group.start_soon(play(script, str(started)).score, ["mae"], TRUTH, {"candidate": TRUTH})
        with anyio.fail_after(30):
            await to_thread.run_sync(started.read_bytes, abandon_on_cancel=True)
        assert len(find_children(str(started))) == 1
        group.cancel_scope.cancel()
    assert find_children(str(started)) == []


async def test_it_knows_none_of_the_routers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHYARD_TOKEN", "a-token-that-nobody-may-see")
    script = "import os, sys; sys.exit(' '.join(os.environ))"
    with pytest.raises(ScoringFailed) as told:
        await play(script).score(["mae"], TRUTH, {"candidate": TRUTH})
    assert "OMP_NUM_THREADS" in str(told.value)
    assert "SWITCHYARD_TOKEN" not in str(told.value)


def test_the_router_itself_never_loads_scikit_learn() -> None:
    script = (
        "import json, sys; import router.__main__, router.wiring, router.engine.gates.challenge;"
        "print(json.dumps([name for name in ('sklearn', 'numpy', 'scipy') if name in sys.modules]))"
    )
    environment = {"PATH": os.environ["PATH"]}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == []


def find_children(mark: str) -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if mark in child.cmdline()]
