"""How often the judge of a rollout is wrong, and how soon it is right: simulated rollouts, seeded.

The judge is the one that is shipped; what it is fed is drawn from 100,000 equally likely answers of each
server, so that failing 0.1% means 100 of them.
"""

import argparse
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist, median

from bench.figures import percentile, print_heading, print_table, say
from router.core.tallies import Tally, Window, bin_of
from router.core.verdicts import AnalysisPolicy, Judge, Verdict

ANSWERS = 100_000
FAILURE = -1
CANARY = (5, 10, 25, 50)
STEP_SECONDS, BAKE_SECONDS = 10, 30
CATCH_SECONDS = 120
PARTS = 20
BUSY = (10, 50, 100, 240)  # requests in a second, when they come unevenly: 100 in the mean
DEFAULTS = AnalysisPolicy()
WANTED_WRONG, WANTED_MEDIAN, WANTED_P99 = 0.01, 10, 60


def draw_exponential(share: float) -> float:
    return -0.040 * math.log1p(-share)


def draw_lognormal(share: float) -> float:
    return 0.030 * math.exp(NormalDist().inv_cdf(share))


def draw_bimodal(share: float) -> float:
    """Nine of ten answers near 20 ms, the others above 200 ms and so far-flung that they have no variance."""
    if share < 0.9:
        return 0.020 * math.exp(0.3 * NormalDist().inv_cdf(share / 0.9))
    return float(0.200 * ((1 - share) / 0.1) ** (-1 / 1.5))


SHAPES: dict[str, Callable[[float], float]] = {
    "exponential": draw_exponential,
    "lognormal": draw_lognormal,
    "bimodal": draw_bimodal,
}


@dataclass(frozen=True)
class Server:
    shape: str
    failing: float = 0.0
    slower: float = 1.0
    at_least_later: float = 0.0  # seconds


@cache
def spread_answers(server: Server) -> tuple[int, ...]:
    failures = round(server.failing * ANSWERS)
    answered = ANSWERS - failures
    drawn = (SHAPES[server.shape]((rank + 0.5) / answered) for rank in range(answered))
    slowed = (max(seconds * server.slower, seconds + server.at_least_later) for seconds in drawn)
    return (*map(bin_of, slowed), *[FAILURE] * failures)


@dataclass(frozen=True)
class World:
    """What a rollout meets. In a bad second a third of all answers fail, whoever gives them."""

    name: str
    active: Server
    candidate: Server
    policy: AnalysisPolicy = DEFAULTS
    bad_seconds: float = 0.0  # share of them
    wanted: bool = True  # whether there is a figure that it must reach


def count(drawn: Sequence[int]) -> Tally:
    latencies = dict(Counter(drawn))
    failures = latencies.pop(FAILURE, 0)
    return Tally(requests=len(drawn), failures=failures, latencies=latencies)


class Traffic:
    """One world's answers, a second at a time."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world, self._chance = world, chance
        self._active, self._candidate = spread_answers(world.active), spread_answers(world.candidate)

    def second(self, weight: float, total: int | None = None) -> Window:
        chance = self._chance
        total = total or chance.choice(BUSY)
        own = total if weight >= 100 else sum([chance.random() * 100 < weight for _ in range(total)])
        active = chance.choices(self._active, k=total - own)
        candidate = chance.choices(self._candidate, k=own)
        if self._world.bad_seconds and chance.random() < self._world.bad_seconds:
            active, candidate = (
                [FAILURE if chance.random() < 1 / 3 else each for each in drawn]
                for drawn in (active, candidate)
            )
        return Window(active=count(active), candidate=count(candidate))


def watch_canary(world: World, traffic: Traffic) -> float:
    """Seconds until it failed, or infinity: the steps and the bake, with a look each second.

    A step with too few requests goes on.
    """
    judge, seconds = Judge(policy=world.policy), 0
    for weight in (*CANARY, 100):
        judge = judge.begin_step(alone=weight == 100)
        ends = seconds + (BAKE_SECONDS if weight == 100 else STEP_SECONDS)
        while seconds < ends or judge.judge().verdict is Verdict.INCONCLUSIVE:
            seconds += 1
            judge = judge.feed(traffic.second(weight))
            if judge.failed:
                return seconds
    return math.inf


def watch_tenth(world: World, traffic: Traffic) -> float:
    """Seconds until it failed, or infinity: 100 requests in each, a tenth of them the candidate's."""
    judge = Judge(policy=world.policy).begin_step(alone=False)
    for second in range(1, CATCH_SECONDS + 1):
        judge = judge.feed(traffic.second(10, total=100))
        if judge.failed:
            return second
    return math.inf


Watch = Callable[[World, Traffic], float]


def run_part(watch: Watch, world: World, part: int, rollouts: int) -> list[float]:
    traffic = Traffic(world, random.Random(f"{world.name}, {part}"))  # noqa: S311
    return [watch(world, traffic) for _ in range(rollouts)]


def simulate(
    pool: Executor, watch: Watch, worlds: Sequence[World], rollouts: int
) -> Iterator[tuple[World, list[float]]]:
    """In parts that the processes share; a part's seed is its world's name and its number."""
    parts = min(PARTS, rollouts)
    futures = [
        [pool.submit(run_part, watch, world, part, rollouts // parts) for part in range(parts)]
        for world in worlds
    ]
    for world, of_world in zip(worlds, futures, strict=True):
        yield world, [after for part in of_world for after in part.result()]


def build_as_good() -> list[World]:
    """Candidates that should stay."""
    worlds = []
    for shape in SHAPES:
        for failing in (0.0, 0.001, 0.01):
            server = Server(shape, failing=failing)
            worlds.append(World(f"{shape}, both fail {failing:.1%}", server, server))
    server = Server("lognormal", failing=0.01)
    strict = AnalysisPolicy(error_tolerance=0, latency_ratio=1, latency_floor_seconds=0)
    edge = Server("lognormal", failing=0.012, slower=DEFAULTS.latency_ratio, at_least_later=0.005)
    return [
        *worlds,
        World("lognormal, both fail a third in one second of 30", server, server, bad_seconds=1 / 30),
        World("lognormal, no tolerance at all", server, server, policy=strict),
        World("lognormal, 1.5 times slower, fails 0.2% more: all that is tolerated", server, edge),
    ]


def build_bad() -> list[World]:
    """Candidates that should go."""
    worlds = []
    for shape in SHAPES:
        server = Server(shape)
        worlds += [
            World(f"{shape}, fails 5%", server, replace(server, failing=0.05)),
            World(f"{shape}, 3 times slower", server, replace(server, slower=3)),
        ]
    good, some = Server("lognormal"), Server("lognormal", failing=0.01)
    return [
        *worlds,
        World("lognormal, fails 5%, the active one 1%", some, replace(some, failing=0.05), wanted=False),
        World("lognormal, fails everything", good, Server("lognormal", failing=1), wanted=False),
        World("lognormal, 2 times slower", good, Server("lognormal", slower=2), wanted=False),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=10_000, help="of each kind")
    rollouts = parser.parse_args().rollouts
    with ProcessPoolExecutor(2) as pool:
        print_heading(f"judge: {rollouts:,} rollouts each, looked at each second")
        bad = [tell_bad(*found) for found in simulate(pool, watch_tenth, build_bad(), rollouts)]
        print_table(BAD_COLUMNS, bad)
        print()
        good = [tell_as_good(*found) for found in simulate(pool, watch_canary, build_as_good(), rollouts)]
        print_table(AS_GOOD_COLUMNS, good)


AS_GOOD_COLUMNS = ("as good", "rolled back", f"wanted: at most {WANTED_WRONG:.0%}")
BAD_COLUMNS = (
    "bad, at 10% of 100 requests/s",
    "median",
    "99%",
    "last",
    f"wanted: {WANTED_MEDIAN} s, {WANTED_P99} s",
)


def tell_as_good(world: World, found: Sequence[float]) -> list[str]:
    wrong = sum(after < math.inf for after in found)
    verdict = "reached" if wrong <= WANTED_WRONG * len(found) else "MISSED"
    say(f"{world.name}: {wrong} rolled back")
    return [world.name, f"{wrong} ({wrong / len(found):.2%})", verdict]


def tell_bad(world: World, found: Sequence[float]) -> list[str]:
    figures = (median(found), percentile(found, 99), max(found))
    verdict = "reached" if figures[0] <= WANTED_MEDIAN and figures[1] <= WANTED_P99 else "MISSED"
    verdict = verdict if world.wanted else ""
    return [world.name, *(f"{figure:g} s" if figure < math.inf else "never" for figure in figures), verdict]


if __name__ == "__main__":
    main()
