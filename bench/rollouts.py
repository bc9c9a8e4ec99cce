"""Whether users lose a request over rollouts of every strategy and every end, under four kinds of client.

`python -m bench.rollouts` takes about ten minutes. `roll_mixed` is also what a test does a tenth of.
"""

import argparse
import itertools
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from bench.figures import print_heading, print_table
from bench.lossless import COLUMNS, ENDLESS, RATE, run_under_load
from bench.stage import TINY_MODEL, open_stage, warm_two
from tests.services.yard import Yard

ROLLOUTS = 200
REQUESTS = 100_000
LOOK_SECONDS = 0.05
ENDS = {"succeeded", "rolled_back", "failed"}
STEPS = {"strategy": "canary", "steps": [30, 60, 100], "bake": 1}
WAITING = {**STEPS, "hold": 600}
# What is asked for, the call that decides it while the candidate has its share, and how it must end.
MIXED: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "blue/green": ({"bake": 1}, None, "succeeded"),
    "canary": ({**STEPS, "hold": 0.2}, None, "succeeded"),
    "promoted by hand": ({**STEPS, "promotion": "manual", "hold": 600}, "{location}/promote", "succeeded"),
    "aborted": (WAITING, "{location}/abort", "rolled_back"),
    "rolled back": (WAITING, "/admin/rollback", "rolled_back"),
}


def roll_mixed(yard: Yard, model: str) -> Iterator[str]:
    """One rollout after another, each kind in turn, without end. Raises if one ends as it should not."""
    for kind, (plan, decision, end) in itertools.cycle(MIXED.items()):
        version = 3 - int(yard.traffic()["active"]["model_version"])
        body = {"name": model, "ref": version, "rollout": plan, "wait_seconds": 0}
        location = yard.call("POST", "/admin/roll", body).json()["location"]
        if decision is not None:
            yard.wait_for(lambda: yard.traffic()["candidate"] is not None, f"a share: {kind}")
            answer = yard.call("POST", decision.format(location=location), {})
            if not answer.is_success:
                raise RuntimeError(f"{kind}: {answer.status_code} {answer.text}")
        found = wait_for_decision(yard, location)
        if found not in ({end, "baking"} if end == "succeeded" else {end}):
            raise RuntimeError(f"{kind}: {location} is {found}")
        yield kind


def wait_for_decision(yard: Yard, location: str) -> str:
    """Its phase once users get it, or have what they had. The next rollout cuts a bake short."""
    while True:
        phase = str(yard.get(location)["phase"])
        if phase in ENDS or phase == "baking":
            return phase
        time.sleep(LOOK_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    given = parser.parse_args()

    def work(yard: Yard, _: "subprocess.Popen[bytes]") -> int:
        began, rollouts = time.monotonic(), roll_mixed(yard, TINY_MODEL)
        for number in itertools.count(1):
            next(rollouts)
            if number >= given.rollouts and (time.monotonic() - began) * RATE >= given.requests * 1.03:
                return number
        raise AssertionError("the count has no end")

    print_heading("rollouts: requests lost over rollouts of mixed strategies")
    with open_stage() as yard:
        warm_two(yard)
        outcome = run_under_load(yard, f"{', '.join(MIXED)}, in turn", work, ENDLESS)
    print_table(("under way", "rollouts", *COLUMNS[2:]), [outcome.row()])
    kept = outcome.report["failed"] == 0 and outcome.switches >= given.rollouts
    reached = kept and outcome.report["requests"] >= given.requests
    print(
        f"\nwanted: 0 failed of {given.requests:,} over {given.rollouts} rollouts:"
        f" {'reached' if reached else 'MISSED'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
