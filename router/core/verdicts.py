"""Whether a candidate is worse than the active server, by what users got: failed, passed or inconclusive.

The judge may be asked after every batch and at any moment: its chance ever to fail a candidate that is as
good as the active server is at most `alpha` per rollout. `bets` says why, docs/analysis.md what was measured.

Latency becomes a yes-or-no question as well: is an answer slower than a quantile of the active server's
latencies? The candidate is given `latency_ratio` and `latency_floor_seconds` more time. The quantile is of
answers seen before the batch: one that depended on the batch itself would make the bets unfair.
"""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from router.core.bets import Bets, bet_on_both, bet_on_both_with_tolerance, bet_on_one, bound_share
from router.core.tallies import Tally, Window, bin_of, upper_edge

QUANTILES = (0.5, 0.9, 0.99)  # of the active server's latencies; a stake on each
ENOUGH_TO_RANK = 30  # answers of the active server, before latencies are compared with its quantiles
CHECKS = 2  # errors and latency: each has half of alpha
PART_OF_BETS = 0.8  # of a check's alpha; the rest is the risk that the reference looked better than it was


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class AnalysisPolicy(BaseModel):
    """What counts as worse, and how sure one has to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.01
    """Chance to roll back a candidate that is as good, per rollout."""

    error_tolerance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.002
    """Share of requests that the candidate may fail beyond what the active server fails."""

    latency_ratio: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 1.5
    """How many times slower the candidate may be."""

    latency_floor_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.005
    """A slowdown of less than this never counts."""

    min_requests: Annotated[int, Field(ge=1)] = 50
    """Of each server and in each step: with fewer, the step is inconclusive."""

    warm_up_requests: Annotated[int, Field(ge=0)] = 10
    """The candidate's first ones, whose latency is not judged: a new server is slow at first."""

    @property
    def e_value_to_fail(self) -> float:
        return CHECKS / (self.alpha * PART_OF_BETS)

    @property
    def reference_risk(self) -> float:
        return self.alpha / CHECKS * (1 - PART_OF_BETS)

    def lift(self, number: int) -> int:
        """The bin that the candidate's slow answers exceed, where the active server's exceed this one."""
        seconds = upper_edge(number)
        return bin_of(max(seconds * self.latency_ratio, seconds + self.latency_floor_seconds))


class Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    failures: int
    failed_percent: float
    p50_ms: float | None  # None: no answer to tell it from
    p99_ms: float | None

    @classmethod
    def of(cls, tally: Tally) -> Self:
        bins = tally.find_bins((0.5, 0.99)) if tally.latencies else ()
        p50, p99 = [round(upper_edge(number) * 1000, 1) for number in bins] or (None, None)
        return cls(
            requests=tally.requests,
            failures=tally.failures,
            failed_percent=round(100 * tally.failed_share, 2),
            p50_ms=p50,
            p99_ms=p99,
        )


class Judgement(BaseModel):
    """The verdict with its evidence. The active server's figures are the reference's, once there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    reason: str
    active: Figures  # since the rollout began, with what was known of it before
    candidate: Figures
    step_active: Figures
    step_candidate: Figures
    errors_p_value: float  # valid at any time
    latency_p_value: float
    p_value_to_fail: float


class Reference(BaseModel):
    """What the active server did before it lost its traffic: limits that it kept to, but for a small risk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tally: Tally
    failed_share: float
    slow: tuple[tuple[int, float], ...]  # bin, and share of the answers above it

    @classmethod
    def of(cls, tally: Tally, risk: float) -> Self:
        bins = tally.find_bins(QUANTILES) if tally.answers >= ENOUGH_TO_RANK else []
        # One more than were seen: the bin was chosen from the same answers (the share above the k-th of n is
        # distributed as Beta(n - k + 1, k)).
        slow = (
            (each, bound_share(tally.count_above(each) + 1, tally.answers, risk / len(QUANTILES)))
            for each in bins
        )
        failed = bound_share(tally.failures, tally.requests, risk)
        return cls(tally=tally, failed_share=failed, slow=tuple(slow))


class Judge(BaseModel):
    """All that is known of a rollout's answers: a value.

    Not to be fed: answers to requests that chose the candidate by the header, not by chance.
    Start with `Judge(policy=..., seen=Window(active=...))` if there are answers of the active server from
    before the rollout; a switch at once has nothing else to compare with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: AnalysisPolicy = AnalysisPolicy()
    seen: Window = Window()  # and judged
    waiting: Window = Window()  # for an answer of the other server
    step_began: Window = Window()  # what had been seen then
    reference: Reference | None = None  # the active server gets no traffic
    errors: Bets = Bets()
    latency: tuple[Bets, ...] = (Bets(),) * len(QUANTILES)
    latency_peak: float = 1.0

    @property
    def failed(self) -> bool:
        return max(self.errors.peak, self.latency_peak) >= self.policy.e_value_to_fail

    def begin_step(self, *, alone: bool) -> "Judge":
        """`alone`: the candidate gets all requests from now on, as in a bake."""
        seen = self.seen + self.waiting
        reference = self.reference if alone else None
        if alone and reference is None:
            reference = Reference.of(seen.active, self.policy.reference_risk)
        changes = {"seen": seen, "waiting": Window(), "step_began": seen, "reference": reference}
        return self.model_copy(update=changes)

    def feed(self, batch: Window) -> "Judge":
        """What was answered since the last batch. A batch must not reach over a change of weights."""
        waiting = self.waiting + batch
        needed = (waiting.candidate,) if self.reference else (waiting.candidate, waiting.active)
        if not all(each.requests for each in needed):
            return self.model_copy(update={"waiting": waiting})
        latency = self._judge_latency(waiting)
        e_value = sum(each.e_value for each in latency) / len(latency)
        changes = {
            "seen": self.seen + waiting,
            "waiting": Window(),
            "errors": self._judge_errors(waiting),
            "latency": latency,
            "latency_peak": max(self.latency_peak, e_value),
        }
        return self.model_copy(update=changes)

    def _judge_errors(self, batch: Window) -> Bets:
        candidate = (batch.candidate.failures, batch.candidate.requests)
        tolerance = self.policy.error_tolerance
        if self.reference:
            return self.errors.play(bet_on_one(candidate, self.reference.failed_share + tolerance))
        active = (batch.active.failures, batch.active.requests)
        return self.errors.play(bet_on_both_with_tolerance(candidate, active, tolerance))

    def _judge_latency(self, batch: Window) -> tuple[Bets, ...]:
        known, policy = self.seen.active, self.policy
        if self.seen.candidate.requests < policy.warm_up_requests or not batch.candidate.answers:
            return self.latency

        def count_slow(limit: int) -> tuple[int, int]:
            return batch.candidate.count_above(policy.lift(limit)), batch.candidate.answers

        if self.reference:
            gains = [bet_on_one(count_slow(limit), share) for limit, share in self.reference.slow]
        elif batch.active.answers and known.answers >= ENOUGH_TO_RANK:
            gains = [
                bet_on_both(count_slow(limit), (batch.active.count_above(limit), batch.active.answers))
                for limit in known.find_bins(QUANTILES)
            ]
        else:
            gains = []
        played = tuple(bets.play(gain) for bets, gain in zip(self.latency, gains, strict=False))
        return played or self.latency

    def judge(self) -> Judgement:
        """`failed` holds at once and for good; `passed` and `inconclusive` are answers for a step's end."""
        seen = self.seen + self.waiting
        step = seen - self.step_began
        active = self.reference.tally if self.reference else seen.active
        verdict, reason = self._decide(active, seen.candidate, step)
        return Judgement(
            verdict=verdict,
            reason=reason,
            active=Figures.of(active),
            candidate=Figures.of(seen.candidate),
            step_active=Figures.of(step.active),
            step_candidate=Figures.of(step.candidate),
            errors_p_value=1 / self.errors.peak,
            latency_p_value=1 / self.latency_peak,
            p_value_to_fail=1 / self.policy.e_value_to_fail,
        )

    def _decide(self, active: Tally, candidate: Tally, step: Window) -> tuple[Verdict, str]:
        needed = self.policy.min_requests
        counts = (step.candidate.requests, (active if self.reference else step.active).requests)
        if self.errors.peak >= self.policy.e_value_to_fail:
            return Verdict.FAILED, tell_errors(candidate, active)
        if self.failed:
            return Verdict.FAILED, tell_latency(candidate, active)
        if min(counts) < needed:
            seen = f"{counts[0]:,} of the candidate, {counts[1]:,} of the active one"
            return Verdict.INCONCLUSIVE, f"too few requests to tell: {seen}; {needed:,} of each are needed"
        return Verdict.PASSED, f"{tell_errors(candidate, active)}; {tell_latency(candidate, active)}"


def tell_errors(candidate: Tally, active: Tally) -> str:
    return (
        f"candidate fails {candidate.failed_share:.1%} of {candidate.requests:,} requests,"
        f" the active one {active.failed_share:.1%} of {active.requests:,}"
    )


def tell_latency(candidate: Tally, active: Tally) -> str:
    ours, theirs = Figures.of(candidate), Figures.of(active)
    if ours.p50_ms is None or theirs.p50_ms is None:
        return "nothing to compare latencies by"
    return (
        f"candidate answers in {ours.p50_ms:g} ms (p50) and {ours.p99_ms:g} ms (p99),"
        f" the active one in {theirs.p50_ms:g} ms and {theirs.p99_ms:g} ms"
    )
