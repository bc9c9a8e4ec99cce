"""What a new endpoint costs the users of the others: adding one is the one operation that reloads Caddy.

Four kinds of client at once on the default endpoint, at a steady rate, while endpoints are added singly and
fifty at a time; and what many endpoints cost while nothing happens at them.
"""

import argparse
import subprocess
import time
from dataclasses import dataclass, field
from statistics import median

import psutil

from bench.figures import percentile, print_heading, print_table, say
from bench.lossless import COLUMNS, ENDLESS, Work, run_under_load
from bench.stage import open_stage, warm_two
from tests.services.yard import Yard

PAUSE = 1.0  # between additions: what one costs is over before the next
MANY = 50
IDLE_SECONDS = 20.0
MEBIBYTE = 1024 * 1024


@dataclass
class Additions:
    """`times` calls, each of so many endpoints."""

    times: int
    at_once: int
    seconds: list[float] = field(default_factory=list)

    def work(self, yard: Yard, _: "subprocess.Popen[bytes]") -> int:
        for number in range(self.times):
            names = [f"by-{self.at_once}-{number}-{each}" for each in range(self.at_once)]
            began = time.monotonic()
            yard.post("/admin/endpoints", {"names": names}, status=201)
            self.seconds.append(time.monotonic() - began)
            time.sleep(PAUSE)
        return self.times

    def row(self) -> list[object]:
        return [
            f"{self.at_once} at once",
            self.times,
            f"{median(self.seconds) * 1000:.0f} ms",
            f"{percentile(self.seconds, 100) * 1000:.0f} ms",
        ]


def wait_quietly(seconds: float) -> Work:
    def work(_: Yard, __: "subprocess.Popen[bytes]") -> int:
        time.sleep(seconds)
        return 0

    return work


def tell_idle_costs(yard: Yard) -> list[object]:
    """How many endpoints there are; of router and Caddy, percent of a core and resident memory."""
    processes = [psutil.Process(yard.router.pid), psutil.Process(yard.caddy.pid)]
    before = [process.cpu_times() for process in processes]
    time.sleep(IDLE_SECONDS)
    row: list[object] = [len(yard.call("GET", "/admin/endpoints").json())]
    for process, earlier in zip(processes, before, strict=True):
        now = process.cpu_times()
        used = now.user + now.system - earlier.user - earlier.system
        row += [
            f"{100 * used / IDLE_SECONDS:.1f}%",
            f"{process.memory_info().rss / MEBIBYTE:.0f} MiB",
        ]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--batches", type=int, default=4)
    given = parser.parse_args()
    print_heading("endpoints: what adding them costs the users of the default one")
    singles, batches = Additions(given.singles, 1), Additions(given.batches, MANY)
    with open_stage() as yard:
        warm_two(yard)
        idle = [tell_idle_costs(yard)]
        outcomes = [run_under_load(yard, "nothing", wait_quietly(given.singles * PAUSE), ENDLESS)]
        outcomes.append(run_under_load(yard, "one added at a time", singles.work, ENDLESS))
        outcomes.append(run_under_load(yard, f"{MANY} added at once", batches.work, ENDLESS))
        say("idle, with all of them")
        idle.append(tell_idle_costs(yard))
    print_table([column.replace("switches", "reloads") for column in COLUMNS], [o.row() for o in outcomes])
    print_table(("POST /admin/endpoints", "calls", "p50", "most"), [singles.row(), batches.row()])
    print_table(("endpoints", "router", "resident", "Caddy", "resident"), idle)


if __name__ == "__main__":
    main()
