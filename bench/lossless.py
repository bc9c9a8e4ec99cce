"""What a switch costs users: four kinds of client at once, while traffic goes back and forth between servers.

The same toggles go through both proxies that we have, in one run; and real rollouts, where servers start,
take over, drain and stop, of the tiny server and of the reference one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.figures import percentile, print_heading, print_table, say
from bench.load import KINDS
from bench.stage import (
    BODY,
    FOREST,
    FOREST_MODEL,
    TINY_MODEL,
    open_mlflow,
    open_yard,
    roll,
    train_two,
    warm_two,
)
from scripts.service_commands import ROOT
from tests.services.yard import Yard

RATE = 210.0  # a little over what is promised, since the last answers come after the last request
TOGGLE_PAUSE = 0.5
TINY_ROLLOUTS = 12
FOREST_ROLLOUTS = 4
ENDLESS = 1_000_000

Work = Callable[[Yard, "subprocess.Popen[bytes]"], int]  # returns how often it switched


@dataclass(frozen=True)
class Outcome:
    what: str
    switches: int
    report: dict[str, Any]

    def row(self) -> list[object]:
        report = self.report
        latencies: list[float] = report["latencies_ms"]
        failed: Counter[str] = Counter(report["failed_by_kind"])
        return [
            self.what,
            self.switches,
            f"{report['requests']:,}",
            f"{report['requests'] / report['seconds']:.0f}/s",
            f"{100 * report['posts'] / report['requests']:.0f}%",
            f"**{report['failed']}**",
            " / ".join(str(failed[kind]) for kind in KINDS),
            f"{median(latencies):.1f} / {percentile(latencies, 99):.0f} ms",
        ]


COLUMNS = (
    *("under way", "switches", "requests", "rate", "POST", "failed"),
    *(f"failed: {' / '.join(KINDS)}", "p50 / p99"),
)


def run_under_load(yard: Yard, what: str, work: Work, requests: int, *options: str) -> Outcome:
    """The clients are a process of their own, which shares no interpreter with whoever switches."""
    say(what)
    command = [sys.executable, "-m", "bench.load", yard.public_url, f"--rate={RATE}"]
    command += [f"--requests={requests}", f"--body={BODY.decode()}", *options]
    with tempfile.TemporaryFile() as output:
        load = subprocess.Popen(command, stdout=output, cwd=ROOT)
        try:
            switches = work(yard, load)
        finally:
            load.terminate()
            load.wait()
        output.seek(0)
        outcome = Outcome(what, switches, json.load(output))
    for reason, count in outcome.report["reasons"].items():
        say(f"  {count} x {reason}")
    return outcome


def toggle(yard: Yard, load: "subprocess.Popen[bytes]") -> int:
    """Until the clients have sent all that they have."""
    toggles = 0
    while load.poll() is None:
        yard.post("/admin/rollback")
        toggles += 1
        time.sleep(TOGGLE_PAUSE)
    return toggles


def roll_in_turn(model: str, versions: tuple[int, int], times: int) -> Work:
    def work(yard: Yard, _: "subprocess.Popen[bytes]") -> int:
        for number in range(times):
            roll(yard, model, versions[number % 2])
            time.sleep(TOGGLE_PAUSE)
        return times

    return work


def measure_slots(yard: Yard, requests: int) -> list[Outcome]:
    warm_two(yard)
    outcomes = [run_under_load(yard, "toggles, `caddy_slots`", toggle, requests)]
    work = roll_in_turn(TINY_MODEL, (1, 2), TINY_ROLLOUTS)
    outcomes.append(run_under_load(yard, "rollouts of the tiny server", work, ENDLESS))
    work = roll_in_turn(FOREST_MODEL, train_two(yard, FOREST), FOREST_ROLLOUTS)
    outcomes.append(run_under_load(yard, "rollouts of the reference server", work, ENDLESS, "--slow-upload"))
    return outcomes


def measure_admin(yard: Yard, requests: int) -> Outcome:
    warm_two(yard)
    return run_under_load(yard, "toggles, `caddy_admin`", toggle, requests)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000, help="for each of the two proxies' toggles")
    requests = parser.parse_args().requests
    print_heading("lossless: requests lost by switching")
    with open_mlflow() as mlflow_url:
        with open_yard(mlflow_url) as yard:
            outcomes = measure_slots(yard, requests)
        with open_yard(mlflow_url, {"PROXY": "caddy_admin"}) as yard:
            outcomes.append(measure_admin(yard, requests))
    print_table(COLUMNS, [outcome.row() for outcome in outcomes])


if __name__ == "__main__":
    main()
