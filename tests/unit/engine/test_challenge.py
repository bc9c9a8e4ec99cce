"""The challenge: who is judged by which rows, and what each kind of bad answer means."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.core.challenges import Challenge
from router.core.errors import RegistryUnavailable
from router.core.held_out import LOGGED_FILE
from router.core.models import Server
from router.core.verdicts import Verdict
from router.engine.gates.base import Case, Ruling
from router.engine.gates.challenge import ChallengeGate
from router.engine.gates.scoring import Scorer, Scores, ScoringFailed
from router.engine.gates.scoring_worker import score
from router.engine.probing import Prober
from router.registries.memory import MemoryRegistry
from tests.fake_clock import FakeClock
from tests.records import make_rollout, make_server

pytestmark = pytest.mark.anyio

Predict = Callable[[list[list[Any]]], Any]
ROWS = [[float(n), 2.0 * n] for n in range(150)]
KEPT = json.dumps({"target": "y", "columns": ["x", "y"], "data": ROWS}).encode()


class NearScorer(Scorer):
    """The worker's own arithmetic, without its process."""

    async def score(
        self, metrics: Sequence[str], truth: Sequence[Any], predictions: Mapping[str, Sequence[Any]]
    ) -> Scores:
        return {
            who: {metric: score(metric, [*truth], [*each]) for metric in metrics}
            for who, each in predictions.items()
        }


class BrokenScorer(Scorer):
    async def score(
        self, metrics: Sequence[str], truth: Sequence[Any], predictions: Mapping[str, Sequence[Any]]
    ) -> Scores:
        raise ScoringFailed("the metrics were not computed within 60 s")


def off_by(distance: float) -> Predict:
    return lambda rows: [2.0 * x + distance for (x,) in rows]


GOOD = off_by(1.0)


class Stage:
    """A champion of version 1 and a candidate of version 2, each of a run of its own."""

    def __init__(self, folder: Path, kept: bytes | None = KEPT) -> None:
        self.folder = folder
        self.registry = MemoryRegistry()
        files = {} if kept is None else {LOGGED_FILE: kept}
        # The candidate's own rows say that whatever it answers is right.
        own = json.dumps({"target": "y", "columns": ["x", "y"], "data": [[x, 0.0] for x, _ in ROWS]}).encode()
        self.registry.add_version("DiabetesRF", "run-1", files=files)
        self.registry.add_version("DiabetesRF", "run-2", files={LOGGED_FILE: own})
        self.servers: dict[str, Predict | httpx.Response] = {"champion": GOOD, "candidate": GOOD}
        self.asked: list[str] = []
        self.champion: Server | None = self.make_server("champion", 1, "run-1")
        self.candidate = self.make_server("candidate", 2, "run-2")
        self.scorer: Scorer = NearScorer()

    @staticmethod
    def make_server(name: str, version: int, run_id: str) -> Server:
        return make_server(name, version=version, run_id=run_id, address=f"{name}:8080")

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        server = self.servers.get(request.url.host)
        if server is None:
            raise httpx.ConnectError("refused")
        if isinstance(server, httpx.Response):
            return server
        rows = json.loads(request.content)["dataframe_split"]["data"]
        return httpx.Response(200, content=json.dumps({"predictions": server(rows)}))

    async def judge(self, **fields: Any) -> Ruling:
        clock = FakeClock()
        prober = Prober(clock, transport=httpx.MockTransport(self.answer))
        rollout = make_rollout("rollout-1", version=self.candidate.version)
        case = Case(rollout, self.candidate, self.champion, self.registry, prober, clock, self.folder)
        challenge = Challenge.model_validate({"metric": "rmse", **fields})
        try:
            return await ChallengeGate(challenge, self.scorer).judge(case)
        finally:
            await prober.close()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


# --- the verdict -----------------------------------------------------------------------------------------


async def test_a_candidate_as_good_as_the_champion_passes_with_evidence(stage: Stage) -> None:
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.PASSED
    assert "rmse is 1, the champion's 1" in ruling.reason
    assert ruling.evidence["scores"] == {"champion": {"rmse": 1.0}, "candidate": {"rmse": 1.0}}
    assert ruling.evidence["rows"] == ruling.evidence["rows_in_file"] == 150
    assert ruling.evidence["data"] == "evaluation/held_out.json of models:/DiabetesRF/1"
    assert ruling.evidence["data_digest"].startswith("sha256:")
    assert json.loads(json.dumps(ruling.evidence)) == ruling.evidence


async def test_a_worse_candidate_fails(stage: Stage) -> None:
    stage.servers["candidate"] = off_by(3.0)
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.FAILED
    assert ruling.reason == "rmse is 3, the champion's 1; it may be worse by 0"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"tolerance": 2.5}, Verdict.PASSED),
        ({"tolerance": 1.5}, Verdict.FAILED),
        ({"relative_tolerance": 2.5}, Verdict.PASSED),
        ({"relative_tolerance": 1.5}, Verdict.FAILED),
        ({"tolerance": 2.5, "max": 2.9}, Verdict.FAILED),
        ({"metric": ["rmse", "r2"], "relative_tolerance": 2.5}, Verdict.PASSED),
        ({"metric": ["rmse", "r2"], "relative_tolerance": 0.1}, Verdict.FAILED),
    ],
)
async def test_as_much_worse_as_the_tolerance_says_is_allowed(
    stage: Stage, fields: dict[str, Any], verdict: Verdict
) -> None:
    stage.servers["candidate"] = off_by(3.0)
    assert (await stage.judge(**fields)).verdict is verdict


async def test_a_difference_of_rounding_is_none(stage: Stage) -> None:
    stage.servers["candidate"] = off_by(1.0 + 1e-12)
    assert (await stage.judge()).verdict is Verdict.PASSED


async def test_classes_are_one_however_a_server_writes_them(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(10)))
    stage.servers["champion"] = lambda rows: [str(x % 2) for (x,) in rows]
    stage.servers["candidate"] = lambda rows: [{"label": x % 2 == 1} for (x,) in rows]
    ruling = await stage.judge(metric=["accuracy", "f1"], data="rows.csv", target="y")
    assert ruling.verdict is Verdict.PASSED, ruling.reason
    assert ruling.evidence["scores"]["candidate"] == {"accuracy": 1.0, "f1": 1.0}
    assert ruling.evidence["data"] == "the operator's file rows.csv"


async def test_a_class_of_endless_length_is_none(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1,a\n2,b\n")
    stage.servers["champion"] = lambda rows: ["a"] * len(rows)
    stage.servers["candidate"] = lambda rows: ["b" * 1001] * len(rows)
    ruling = await stage.judge(metric="accuracy", data="rows.csv", target="y")
    assert ruling.verdict is Verdict.FAILED
    assert "where a class was expected" in ruling.reason


async def test_a_score_that_overflows_fails_the_candidate(stage: Stage) -> None:
    stage.servers["candidate"] = off_by(1e300)
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.FAILED
    assert "not finite" in ruling.reason


# --- bad answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda rows: [1.0], "100 rows were asked and 1 predictions"),
        (lambda rows: [1.0] * 101, "100 rows were asked and 101"),
        (lambda rows: [float("nan")] * 100, "not finite"),
        (lambda rows: [None] * 100, "not finite"),
        (lambda rows: ["1.0"] * 100, 'answered "1.0" where a number'),
        (lambda rows: [True] * 100, "answered true where a number"),
        (lambda rows: [10**400] * 100, "answered 1000"),
        (lambda rows: [[1.0, 2.0]] * 100, r"answered \[1.0, 2.0\]"),
        (lambda rows: {"y": [1.0] * 100}, "not a list"),
        (httpx.Response(200, content=b"well"), "without predictions"),
        (httpx.Response(400, content=b"no such column"), "refused held-out rows: no such column"),
        (httpx.Response(500, content=b"oops"), "answered 500: oops"),
        (None, "did not answer: ConnectError"),
    ],
)
async def test_a_candidate_whose_answer_cannot_be_scored_fails_and_a_champion_leaves_it_open(
    stage: Stage, answer: Any, reason: str
) -> None:
    stage.servers["candidate"] = answer
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.FAILED
    assert ruling.reason.startswith("the candidate cannot be scored: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "servers", {"champion": answer, "candidate": GOOD})
        opened = await stage.judge()
    assert opened.verdict is Verdict.INCONCLUSIVE
    assert opened.reason == ruling.reason.replace("candidate", "champion")
    assert re.search(reason, ruling.reason), ruling.reason


async def test_the_champion_may_go_away_in_the_middle(stage: Stage) -> None:
    def predict_once(rows: list[list[Any]]) -> Any:
        del stage.servers["champion"]
        return GOOD(rows)

    stage.servers["champion"] = predict_once
    ruling = await stage.judge()
    assert stage.asked == ["champion", "candidate", "champion"]
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert ruling.reason.startswith("the champion cannot be scored: /invocations did not answer")


async def test_metrics_that_could_not_be_computed_leave_it_open(stage: Stage) -> None:
    stage.scorer = BrokenScorer()
    ruling = await stage.judge()
    assert (ruling.verdict, ruling.reason) == (
        Verdict.INCONCLUSIVE,
        "the metrics were not computed within 60 s",
    )


# --- where the rows come from ----------------------------------------------------------------------------


async def test_a_champion_without_held_out_rows_leaves_it_open_though_the_candidate_has_some(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, kept=None)
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "version 1 of model 'DiabetesRF' has no file 'evaluation/held_out.json'" in ruling.reason
    assert stage.asked == []


async def test_a_champion_whose_version_was_deleted_leaves_it_open(stage: Stage) -> None:
    stage.champion = stage.make_server("champion", 7, "run-7")
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "has no version 7" in ruling.reason


async def test_held_out_rows_that_cannot_be_read_leave_it_open(tmp_path: Path) -> None:
    ruling = await Stage(tmp_path, kept=b"{").judge()
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "held_out.json of models:/DiabetesRF/1: it is not JSON" in ruling.reason


async def test_a_target_of_words_has_no_errors_in_numbers(tmp_path: Path) -> None:
    kept = json.dumps({"target": "y", "columns": ["x", "y"], "data": [[1, "yes"], [2, "no"]]}).encode()
    ruling = await Stage(tmp_path, kept).judge()
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "rmse is for numbers, `y` is not one" in ruling.reason


async def test_the_candidates_own_run_is_never_the_source(stage: Stage) -> None:
    stage.champion = stage.make_server("champion", 1, "run-2")
    ruling = await stage.judge()
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert "of the candidate's own run" in ruling.reason


async def test_the_champions_own_version_has_nothing_to_beat(stage: Stage) -> None:
    stage.candidate = stage.make_server("candidate", 1, "run-1")
    assert (await stage.judge()).verdict is Verdict.PASSED
    assert (await stage.judge(max=60)).verdict is Verdict.INCONCLUSIVE


async def test_a_registry_that_is_away_is_for_the_runner_to_ask_again(stage: Stage) -> None:
    stage.registry.fail_with(RegistryUnavailable())
    with pytest.raises(RegistryUnavailable):
        await stage.judge()


# --- the operator's file ---------------------------------------------------------------------------------


async def test_the_operators_file_needs_no_rows_of_the_champions(tmp_path: Path) -> None:
    stage = Stage(tmp_path, kept=None)
    (tmp_path / "rows.json").write_bytes(KEPT)
    stage.servers["candidate"] = off_by(3.0)
    ruling = await stage.judge(data="rows.json", rows=10)
    assert ruling.verdict is Verdict.FAILED
    assert (ruling.evidence["rows"], ruling.evidence["rows_in_file"]) == (10, 150)


async def test_a_csv_has_the_types_of_the_candidates_signature(stage: Stage, tmp_path: Path) -> None:
    stage.registry.add_version(
        "DiabetesRF", "run-3", signature={"inputs": [{"name": "x", "type": "string"}], "outputs": None}
    )
    stage.candidate = stage.make_server("candidate", 3, "run-3")
    (tmp_path / "rows.csv").write_text("x,y\n01,2\n02,4\n")
    for who in stage.servers:
        stage.servers[who] = lambda rows: [2 * int(x.removeprefix("0")) for (x,) in rows]
    assert (await stage.judge(data="rows.csv", target="y")).verdict is Verdict.PASSED


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "link", "loop", "folder link", "large"])
async def test_what_is_not_a_plain_file_inside_the_folder_is_not_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, outside = tmp_path / "challenges", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "rows.json").write_bytes(KEPT)
    named = "rows.json"
    if kind == "folder":
        (folder / named).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / named)
    elif kind == "link":
        (folder / named).symlink_to(outside / named)
    elif kind == "loop":
        (folder / named).symlink_to(folder / named)
    elif kind == "folder link":
        (folder / "sub").symlink_to(outside)
        named = "sub/rows.json"
    elif kind == "large":
        (folder / named).write_bytes(KEPT)
        monkeypatch.setattr("router.engine.gates.challenge_data.MAX_BYTES", 100)
    stage = Stage(folder)
    ruling = await stage.judge(data=named)
    assert ruling.verdict is Verdict.INCONCLUSIVE
    assert ruling.reason.startswith(f"no held-out rows: the operator's file {named}: ")
    assert stage.asked == []


async def test_a_link_that_stays_inside_the_folder_is_followed(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "rows.json").write_bytes(KEPT)
    (tmp_path / "rows.json").symlink_to(tmp_path / "..2026" / "rows.json")
    assert (await stage.judge(data="rows.json")).verdict is Verdict.PASSED


# --- without a champion ----------------------------------------------------------------------------------


async def test_without_a_champion_only_bounds_can_be_judged(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(KEPT)
    stage.champion = None
    stage.servers["candidate"] = off_by(3.0)
    assert (await stage.judge(data="rows.json", max=4.0)).verdict is Verdict.PASSED
    assert (await stage.judge(data="rows.json", max=2.0)).verdict is Verdict.FAILED
    assert (await stage.judge(data="rows.json", metric="r2", min=0.999)).verdict is Verdict.FAILED
    unbounded = await stage.judge(data="rows.json")
    assert unbounded.verdict is Verdict.PASSED
    assert unbounded.reason == "rmse is 3, and no champion is there to compare it with"
    assert set(stage.asked) == {"candidate"}


async def test_without_a_champion_and_a_file_nothing_is_asked(stage: Stage) -> None:
    stage.champion = None
    passed = await stage.judge()
    assert (passed.verdict, passed.reason) == (
        Verdict.PASSED,
        "no champion is there to compare it with",
    )
    opened = await stage.judge(max=60)
    assert opened.verdict is Verdict.INCONCLUSIVE
    assert "name a file with `data`" in opened.reason
    assert stage.asked == []
