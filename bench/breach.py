"""How soon a bad candidate gets no more traffic, counted from the answer that was enough to convict it.

The judge looks twice a second, so what it could have known is up to half a second old when it looks. From the
access log: the last answers that the deciding look could have counted, and the last request that reached the
candidate.
"""

import argparse
import json
import subprocess
import time
from dataclasses import dataclass, field

from bench.figures import print_heading, print_table, tell_milliseconds
from bench.lossless import ENDLESS, run_under_load
from bench.stage import TINY_MODEL, open_stage, warm_two
from router.engine.analysis import LOOK_SECONDS
from tests.services.yard import Yard

ROLLOUTS = 15
PLAN = {"strategy": "canary", "steps": [10], "hold": 600}
BAD = "tests/sources/fails-now-and-then"
ENDS = {"succeeded", "rolled_back", "failed"}


@dataclass
class Times:
    """Seconds, one for each rollout."""

    from_look: list[float] = field(default_factory=list)  # the verdict to the candidate's last request

    @property
    def from_evidence(self) -> list[float]:
        """At most: as if the answer that convicted it had come just after the look before."""
        return [LOOK_SECONDS + seconds for seconds in self.from_look]


def measure_one(yard: Yard) -> float:
    version = 3 - int(yard.traffic()["active"]["model_version"])
    body = {"name": TINY_MODEL, "ref": version, "serve_image": BAD, "rollout": PLAN, "wait_seconds": 0}
    location = str(yard.call("POST", "/admin/roll", body).json()["location"])
    yard.wait_for(lambda: yard.traffic()["candidate"] is not None, "a share")
    address = yard.traffic()["candidate"]["address"]
    yard.wait_for(lambda: yard.get(location)["phase"] in ENDS, "its end", 120)
    rollout = yard.get(location)
    if rollout["phase"] != "rolled_back":
        raise RuntimeError(f"{location} is {rollout['phase']}")
    return last_request(yard, address) - float(rollout["entered"]["aborting"])


def last_request(yard: Yard, address: str) -> float:
    """When the last one that reached this server arrived."""
    lines = (yard.state / "access.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if address in line]
    return max(float(entry["ts"] - entry["duration"]) for entry in entries if entry["upstream"] == address)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    rollouts: int = parser.parse_args().rollouts
    times = Times()

    def work(yard: Yard, _: "subprocess.Popen[bytes]") -> int:
        time.sleep(2)  # what the active server did is what latencies are measured by
        for _number in range(rollouts):
            times.from_look.append(measure_one(yard))
        return rollouts

    print_heading("breach: from the evidence to no traffic")
    with open_stage() as yard:
        warm_two(yard)
        run_under_load(yard, "canaries that fail now and then", work, ENDLESS)
    print_table(
        (f"{rollouts} canaries at 10%", "p50", "p99", "least", "most"),
        [
            ["verdict to the candidate's last request", *tell_milliseconds(times.from_look)],
            ["evidence to its last request, at most", *tell_milliseconds(times.from_evidence)],
        ],
    )
    reached = max(times.from_evidence) < 1
    print(f"\nwanted: under 1 s: {'reached' if reached else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
