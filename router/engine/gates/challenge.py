"""Has champion and candidate predict the same held-out rows, and compares scikit-learn's metrics of both.

What a trainer reports of its own model is not asked. The rows are the champion's or the operator's, the
answers are those of the servers themselves, and the metrics are computed here.
"""

import json
import math
from typing import Any

from router.core.challenges import ERRORS, Challenge, MetricName
from router.core.errors import InvalidRequest, UnknownVersion
from router.core.held_out import HeldOut, UnusableRows
from router.core.models import Server
from router.core.verdicts import Verdict
from router.engine.gates.base import Case, Ruling
from router.engine.gates.challenge_data import Source, fetch_rows
from router.engine.gates.scoring import Scorer, Scores, ScoringFailed
from router.engine.probing import ProbeFailed, Prober

# Sums of the same numbers in another order, as many threads make them, differ by less.
ROUNDING = 1e-9
LONGEST_CLASS = 1000  # characters
CHAMPION, CANDIDATE = "champion", "candidate"


class _Unfit(Exception):
    """A server's answers cannot be scored."""

    def __init__(self, who: str, reason: str) -> None:
        super().__init__(f"the {who} cannot be scored: {reason}")
        self.who = who


class ChallengeGate:
    name = "challenge"

    def __init__(self, challenge: Challenge, scorer: Scorer | None = None) -> None:
        self._challenge = challenge
        self._scorer = scorer or Scorer()

    async def judge(self, case: Case) -> Ruling:
        ruling = self._rule_without_rows(case)
        if ruling is not None:
            return ruling
        try:
            source = await fetch_rows(case, self._challenge)
            self._check_truth(source)
        except (UnusableRows, UnknownVersion, InvalidRequest) as error:
            return Ruling(Verdict.INCONCLUSIVE, f"no held-out rows: {error}")
        evidence = _describe(source, case)
        try:
            predictions = await self._ask_both(case, source.held_out)
            scores = await self._scorer.score(self._challenge.metric, source.held_out.truth, predictions)
        except _Unfit as unfit:
            verdict = Verdict.FAILED if unfit.who == CANDIDATE else Verdict.INCONCLUSIVE
            return Ruling(verdict, str(unfit), evidence)
        except ScoringFailed as error:
            return Ruling(Verdict.INCONCLUSIVE, str(error), evidence)
        return self._compare(scores, evidence | {"scores": scores})

    def _rule_without_rows(self, case: Case) -> Ruling | None:
        """What is plain without asking anybody."""
        if self._challenge.data is not None:
            return None
        champion = case.champion
        if champion is None:
            if self._challenge.bounded:
                text = "no champion is there to take held-out rows from; name a file with `data`"
                return Ruling(Verdict.INCONCLUSIVE, text)
            return Ruling(Verdict.PASSED, "no champion is there to compare it with")
        candidate = case.candidate
        same = (champion.model_name, champion.version) == (candidate.model_name, candidate.version)
        if same and not self._challenge.bounded:
            return Ruling(Verdict.PASSED, "it is the champion's own version: nothing is to be compared")
        if same or (champion.run_id is not None and champion.run_id == candidate.run_id):
            text = "the champion's held-out rows are of the candidate's own run; name a file with `data`"
            return Ruling(Verdict.INCONCLUSIVE, text)
        return None

    def _check_truth(self, source: Source) -> None:
        held_out = source.held_out
        if self._challenge.of_numbers and not all(map(_is_number, held_out.truth)):
            raise UnusableRows(
                f"{source.name}: {self._challenge.metric[0]} is for numbers, `{held_out.target}` is not one"
            )

    async def _ask_both(self, case: Case, held_out: HeldOut) -> dict[str, list[Any]]:
        """The champion first: rows that it does not take either are no fault of the candidate's."""
        servers = {CHAMPION: case.champion} if case.champion else {}
        servers[CANDIDATE] = case.candidate
        predictions: dict[str, list[Any]] = {who: [] for who in servers}
        for body, rows in held_out.bodies:
            for who, server in servers.items():
                answer = await _ask(case.prober, who, server, body)
                predictions[who] += self._read_values(who, answer, rows)
        return predictions

    def _read_values(self, who: str, answer: Any, rows: int) -> list[Any]:
        if not isinstance(answer, list):
            raise _Unfit(who, "its answer is not a list of predictions")
        if len(answer) != rows:
            raise _Unfit(who, f"{rows} rows were asked and {len(answer)} predictions were answered")
        values = [_unwrap(each) for each in answer]
        fits = _is_number if self._challenge.of_numbers else _is_class
        wrong = next((each for each in values if not fits(each)), None)
        if wrong is not None:
            wanted = "a number" if self._challenge.of_numbers else "a class"
            raise _Unfit(who, f"it answered {json.dumps(wrong)[:100]} where {wanted} was expected")
        return values

    def _compare(self, scores: Scores, evidence: dict[str, Any]) -> Ruling:
        found: list[tuple[Verdict, str]] = []
        for metric in self._challenge.metric:
            score = scores[CANDIDATE][metric]
            if score is None:
                found.append((Verdict.FAILED, f"the candidate's {metric} is not finite"))
                continue
            if self._challenge.bounded:
                found.append(self._check_bound(metric, score))
            if CHAMPION in scores:
                found.append(self._check_gain(metric, score, scores[CHAMPION][metric]))
            elif not self._challenge.bounded:
                text = f"{metric} is {score:.6g}, and no champion is there to compare it with"
                found.append((Verdict.PASSED, text))
        worst = min((each for each, _ in found), key=WORST_FIRST.index)
        return Ruling(worst, "; ".join(text for each, text in found if each is worst), evidence)

    def _check_bound(self, metric: MetricName, score: float) -> tuple[Verdict, str]:
        if metric in ERRORS:
            bound = self._challenge.max
            assert bound is not None
            return _rule(score <= bound, f"{metric} is {score:.6g}, at most {bound:g} is allowed")
        bound = self._challenge.min
        assert bound is not None
        return _rule(score >= bound, f"{metric} is {score:.6g}, at least {bound:g} is wanted")

    def _check_gain(self, metric: MetricName, score: float, best: float | None) -> tuple[Verdict, str]:
        if best is None:
            return Verdict.INCONCLUSIVE, f"the champion's {metric} is not finite"
        gain = self._challenge.find_gain(metric, score, best)
        allowance = self._challenge.find_allowance(best)
        text = f"{metric} is {score:.6g}, the champion's {best:.6g}; it may be worse by {allowance:g}"
        rounding = ROUNDING * (abs(best) if metric in ERRORS else 1.0)
        return _rule(gain >= -allowance - rounding, text)


WORST_FIRST = (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)


def _rule(holds: bool, text: str) -> tuple[Verdict, str]:
    return Verdict.PASSED if holds else Verdict.FAILED, text


async def _ask(prober: Prober, who: str, server: Server, body: bytes) -> Any:
    if server.address is None:
        raise _Unfit(who, "it has no address")
    try:
        return await prober.predict(server.address, body, what="held-out rows")
    except ProbeFailed as error:
        raise _Unfit(who, str(error)) from error


def _describe(source: Source, case: Case) -> dict[str, Any]:
    held_out = source.held_out
    champion = case.champion
    return {
        "rows": len(held_out.truth),
        "rows_in_file": held_out.total,
        "data": source.name,
        "data_digest": held_out.digest,
        "target": held_out.target,
        "champion": f"models:/{champion.model_name}/{champion.version}" if champion else None,
    }


def _unwrap(value: Any) -> Any:
    """A table of one column comes as a list or a mapping of one."""
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.values()))
    return value


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer of hundreds of digits
        return False


def _is_class(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_CLASS
    return isinstance(value, bool) or _is_number(value)
