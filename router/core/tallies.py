"""What two servers answered in the same stretch of time, small enough to be kept with the rollout.

Latencies are counted in bins whose edges grow by a constant factor, as in DDSketch (Masson, Rim, Lee 2019):
a percentile read from them is at most 4.2% too high, however the latencies are spread, and the memory is
bounded. Whether a latency is above an edge is exact, which is all that the judge asks.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

CLIENT_GONE = 499  # the status of a request whose client hung up before there was an answer
SHORTEST_SECONDS = 1e-4
BINS_PER_DOUBLING = 17  # then factors of 1.5, 2 and 3 are, nearly, whole numbers of bins
LAST_BIN = 24 * BINS_PER_DOUBLING  # 28 minutes and more


class Answered(Protocol):
    """A request as the proxy recorded it; `Sample` of the proxy's port is one."""

    @property
    def address(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Tally:
    """One server's answers. A failed one says nothing about latency and stands in no bin."""

    requests: int = 0
    failures: int = 0
    latencies: dict[int, int] = field(default_factory=dict)  # bin -> answers in it

    @property
    def answers(self) -> int:
        return self.requests - self.failures

    @property
    def failed_share(self) -> float:
        return self.failures / self.requests if self.requests else 0.0

    def __add__(self, other: "Tally") -> "Tally":
        if not self.requests:
            return other
        latencies = self.latencies.copy()
        for number, count in other.latencies.items():
            latencies[number] = latencies.get(number, 0) + count
        return Tally(
            requests=self.requests + other.requests,
            failures=self.failures + other.failures,
            latencies=latencies,
        )

    def __sub__(self, earlier: "Tally") -> "Tally":
        left = (
            (number, count - earlier.latencies.get(number, 0)) for number, count in self.latencies.items()
        )
        return Tally(
            requests=self.requests - earlier.requests,
            failures=self.failures - earlier.failures,
            latencies={number: count for number, count in left if count},
        )

    def find_bins(self, quantiles: Iterable[float]) -> list[int]:
        """The bin in which each quantile of the latencies lies. There must be answers."""
        bins = sorted(self.latencies)
        up_to = list(accumulate(self.latencies[number] for number in bins))
        return [bins[bisect_left(up_to, math.ceil(quantile * up_to[-1]))] for quantile in quantiles]

    def count_above(self, limit: int) -> int:
        """Answers slower than the upper edge of this bin."""
        return sum(count for number, count in self.latencies.items() if number > limit)


NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class Window:
    """Both servers over the same stretch of time."""

    active: Tally = NOTHING
    candidate: Tally = NOTHING

    def __add__(self, other: "Window") -> "Window":
        return Window(active=self.active + other.active, candidate=self.candidate + other.candidate)

    def __sub__(self, earlier: "Window") -> "Window":
        return Window(active=self.active - earlier.active, candidate=self.candidate - earlier.candidate)


def tally(answers: Iterable[Answered]) -> Tally:
    requests = failures = 0
    latencies: dict[int, int] = {}
    for answer in answers:
        requests += 1
        if is_failure(answer.status):
            failures += 1
        else:
            number = bin_of(answer.seconds)
            latencies[number] = latencies.get(number, 0) + 1
    return Tally(requests=requests, failures=failures, latencies=latencies)


def sort_answers(answers: Iterable[Answered], active: str, candidate: str) -> Window:
    """By the address that answered; those of other servers are left out."""
    sides: dict[str, list[Answered]] = {active: [], candidate: []}
    for answer in answers:
        if answer.address in sides:
            sides[answer.address].append(answer)
    return Window(active=tally(sides[active]), candidate=tally(sides[candidate]))


def is_failure(status: int) -> bool:
    """Not what the user came for, whoever is to blame: a model that refuses what the one before took answers
    4xx. A client that hung up (499) did not wait for an answer: how long it had waited counts as latency."""
    return status >= 400 and status != CLIENT_GONE


def bin_of(seconds: float) -> int:
    if not seconds > SHORTEST_SECONDS:
        return 0
    return math.ceil(min(LAST_BIN, BINS_PER_DOUBLING * math.log2(seconds / SHORTEST_SECONDS) - 1e-9))


def upper_edge(number: int) -> float:
    """Seconds."""
    return float(SHORTEST_SECONDS * 2 ** (number / BINS_PER_DOUBLING))
