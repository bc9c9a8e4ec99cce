"""The judge's verdicts. How often it errs is simulated here in small, in full by `scripts/bench judge`."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.judge import SHAPES, Server, World, run_part, watch_canary, watch_tenth
from router.core.tallies import LAST_BIN, Tally, Window, bin_of
from router.core.verdicts import AnalysisPolicy, Judge, Verdict


def answers(count: int, *, failures: int = 0, seconds: float = 0.02) -> Tally:
    good = count - failures
    return Tally(count, failures, {bin_of(seconds): good} if good else {})


def watch(judge: Judge, batch: Window, times: int) -> Judge:
    for _ in range(times):
        judge = judge.feed(batch)
    return judge


GOOD = Window(active=answers(90), candidate=answers(10))
AFTER_THE_SWITCH = Window(candidate=answers(100))


def test_a_candidate_as_good_as_the_active_server_passes() -> None:
    judgement = watch(Judge(), GOOD, 20).judge()
    assert judgement.verdict is Verdict.PASSED
    assert judgement.reason == (
        "candidate fails 0.0% of 200 requests, the active one 0.0% of 1,800;"
        " candidate answers in 20 ms (p50) and 20 ms (p99), the active one in 20 ms and 20 ms"
    )


def test_a_candidate_that_fails_requests_fails_and_the_reason_says_how_many() -> None:
    judge = watch(Judge(), Window(active=answers(90), candidate=answers(10, failures=1)), 20)
    judgement = judge.judge()
    assert judgement.verdict is Verdict.FAILED
    assert judgement.reason == "candidate fails 10.0% of 200 requests, the active one 0.0% of 1,800"
    assert judgement.errors_p_value < judgement.p_value_to_fail < judgement.latency_p_value


def test_a_candidate_that_is_slower_fails_and_the_reason_says_how_slow() -> None:
    judge = watch(Judge(), Window(active=answers(90), candidate=answers(10, seconds=0.06)), 20)
    judgement = judge.judge()
    assert judgement.verdict is Verdict.FAILED
    assert "candidate answers in 60" in judgement.reason
    assert judgement.latency_p_value < judgement.p_value_to_fail < judgement.errors_p_value


def test_a_failed_candidate_stays_failed_however_well_it_does_later() -> None:
    judge = watch(Judge(), Window(active=answers(90), candidate=answers(10, failures=5)), 10)
    assert watch(judge, GOOD, 1000).judge().verdict is Verdict.FAILED


def test_a_candidate_that_fails_only_after_an_hour_is_still_caught_soon() -> None:
    judge = watch(Judge(), GOOD, 3600)
    assert not judge.failed
    assert watch(judge, Window(active=answers(90), candidate=answers(10, failures=1)), 30).failed


def test_a_bad_moment_of_both_servers_convicts_nobody() -> None:
    both = Window(active=answers(90, failures=45), candidate=answers(10, failures=5))
    assert watch(watch(Judge(), GOOD, 10), both, 100).judge().verdict is Verdict.PASSED


def test_one_batch_alone_convicts_nobody() -> None:
    judge = watch(Judge(), GOOD, 10)
    assert not judge.feed(Window(active=answers(9000), candidate=answers(1000, failures=1000))).failed


@pytest.mark.parametrize("bad", [answers(60, failures=60), answers(60, seconds=3.0)], ids=["fails", "slow"])
@pytest.mark.parametrize("alone", [True, False])
def test_one_bad_batch_lets_no_step_pass_either_until_what_follows_is_good(bad: Tally, alone: bool) -> None:
    judge = watch(Judge(), GOOD, 10).begin_step(alone=alone)
    one = judge.feed(Window(active=answers(540), candidate=bad))
    assert one.judge().verdict is Verdict.INCONCLUSIVE
    assert "chance" in one.judge().reason
    assert one.feed(GOOD).judge().verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "batch",
    [
        Window(active=answers(90), candidate=answers(10, seconds=0.029)),  # the ratio's
        Window(active=answers(90, seconds=0.001), candidate=answers(10, seconds=0.005)),  # the floor's
    ],
    ids=["ratio", "floor"],
)
def test_a_slowdown_within_the_tolerances_passes(batch: Window) -> None:
    assert watch(Judge(), batch, 200).judge().verdict is Verdict.PASSED


def test_a_server_that_is_slow_at_its_very_first_requests_passes() -> None:
    cold = Window(active=answers(90), candidate=answers(10, seconds=3.0))
    judge = watch(watch(Judge(), Window(active=answers(90)), 5).feed(cold), GOOD, 10)
    assert judge.judge().verdict is Verdict.PASSED
    assert judge.latency_peak < 2


@pytest.mark.parametrize("batch", [Window(answers(1000), answers(49)), Window(answers(49), answers(1000))])
def test_too_few_requests_of_either_are_inconclusive(batch: Window) -> None:
    judgement = Judge().feed(batch).judge()
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "49 of the" in judgement.reason
    assert "50 of each are needed" in judgement.reason


def test_every_step_needs_its_own_requests() -> None:
    judge = watch(Judge(), GOOD, 20).begin_step(alone=False)
    assert judge.feed(GOOD).judge().verdict is Verdict.INCONCLUSIVE
    assert watch(judge, GOOD, 5).judge().verdict is Verdict.PASSED
    assert watch(judge, GOOD, 5).judge().step_candidate.requests == 50


def test_evidence_outlasts_a_step() -> None:
    bad = Window(active=answers(90), candidate=answers(10, failures=1))
    judge = Judge()
    for _ in range(10):
        judge = watch(judge.begin_step(alone=False), bad, 1)
    assert judge.failed


def test_nobody_asked_is_inconclusive_and_has_figures_without_numbers() -> None:
    judgement = Judge().judge()
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert (judgement.candidate.p50_ms, judgement.candidate.failed_percent) == (None, 0.0)


def test_answers_of_one_server_wait_for_the_others() -> None:
    split = Judge().feed(Window(candidate=answers(10, failures=3))).feed(Window(active=answers(90)))
    assert split == Judge().feed(Window(active=answers(90), candidate=answers(10, failures=3)))


# --- after the switch ------------------------------------------------------------------------------------


def test_after_the_switch_the_candidate_is_held_to_what_the_active_server_did() -> None:
    judge = watch(Judge(), GOOD, 20).begin_step(alone=True)
    passed = watch(judge, AFTER_THE_SWITCH, 30).judge()
    assert (passed.verdict, passed.active.requests) == (Verdict.PASSED, 1800)
    assert watch(judge, Window(candidate=answers(100, failures=5)), 10).failed
    assert watch(judge, Window(candidate=answers(100, seconds=0.06)), 10).failed


def test_a_switch_at_once_is_judged_by_what_came_before_it() -> None:
    judge = Judge(seen=Window(active=answers(2000))).begin_step(alone=True)
    assert watch(judge, AFTER_THE_SWITCH, 10).judge().verdict is Verdict.PASSED
    assert watch(judge, Window(candidate=answers(100, failures=5)), 10).failed


def test_without_anything_to_hold_it_to_the_candidate_neither_passes_nor_fails() -> None:
    judge = Judge().begin_step(alone=True)
    broken = watch(judge, Window(candidate=answers(100, failures=90)), 100).judge()
    assert broken.verdict is Verdict.INCONCLUSIVE


def test_what_the_active_server_still_finishes_after_the_switch_is_no_new_reference() -> None:
    judge = watch(Judge(), GOOD, 20).begin_step(alone=True)
    late = judge.feed(Window(active=answers(3, failures=3), candidate=answers(100)))
    assert late.reference == judge.reference
    assert late.begin_step(alone=True).reference == judge.reference
    assert late.begin_step(alone=False).reference is None


# --- a router that is restarted --------------------------------------------------------------------------


tallies = st.builds(
    lambda good, failures, seconds: answers(good + failures, failures=failures, seconds=seconds),
    st.integers(0, 50),
    st.integers(0, 5),
    st.floats(0, 100),
)
windows = st.lists(st.builds(Window, tallies, tallies), max_size=20)


@given(before=windows, after=windows, alone=st.booleans())
def test_a_judge_read_back_from_json_goes_on_as_if_nothing_had_happened(
    before: list[Window], after: list[Window], alone: bool
) -> None:
    judge = Judge()
    for batch in before:
        judge = judge.feed(batch)
    judge = judge.begin_step(alone=alone)
    read_back = Judge.model_validate_json(judge.model_dump_json())
    assert read_back == judge
    for batch in after:
        judge, read_back = judge.feed(batch), read_back.feed(batch)
    assert read_back == judge
    evidence = json.loads(judge.judge().model_dump_json(), parse_constant=pytest.fail)
    assert all(math.isfinite(evidence[key]) for key in ("errors_p_value", "latency_p_value"))


def test_its_size_is_bounded() -> None:
    everywhere = Tally(10**9 * LAST_BIN, 0, dict.fromkeys(range(LAST_BIN), 10**9))
    judge = Judge().feed(Window(active=everywhere, candidate=everywhere)).begin_step(alone=True)
    assert len(judge.model_dump_json()) < 50_000


@pytest.mark.parametrize(
    "setting",
    [
        {"alpha": 0},
        {"alpha": math.nan},
        {"error_tolerance": -0.1},
        {"latency_ratio": 0.5},
        {"latency_floor_seconds": math.inf},
        {"min_requests": 0},
        {"sensitivity": 3},
    ],
    ids=str,
)
def test_a_policy_that_means_nothing_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        AnalysisPolicy.model_validate(setting)


# --- how often it errs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_of_100_rollouts_of_a_candidate_as_good_hardly_one_is_rolled_back(shape: str) -> None:
    server = Server(shape, failing=0.01)
    ends = run_part(watch_canary, World(shape, server, server), 0, 100)
    assert sum(after < math.inf for after in ends) <= 1  # the seed is fixed


@pytest.mark.parametrize(
    "bad", [Server("lognormal", failing=0.05), Server("lognormal", slower=3)], ids=["failing", "slower"]
)
def test_of_100_bad_candidates_each_is_caught_within_a_minute(bad: Server) -> None:
    ends = run_part(watch_tenth, World("bad", Server("lognormal"), bad), 0, 100)
    assert max(ends) <= 60
