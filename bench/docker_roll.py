"""How long a rollout takes on Docker: from POST /admin/roll to its answer, over the compose stack.

Beside it the same serve image by hand, from its creation to its first prediction, below which no router gets.
Two versions in turn, so that each rollout launches a container while the one before serves.
"""

import argparse
import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.figures import print_heading, print_table, say, tell_seconds
from bench.socket_proxy import DirectConnection, ask
from scripts.demo_run import ROWS, TRAINER
from tests.e2e.compose_stack import ComposeStack, run_compose_stack
from tests.integration.docker.installation import JSON
from tests.services.engine import ensure_engine

MODEL = "DiabetesRF"
WANTED_SECONDS = 2.0
PHASES = ("pending", "launching", "probing", "gating", "shifting")  # before the switch, and so the answer
SERVERS = 2  # that are left when a rollout has settled: one with the traffic, one warm
LOOK_SECONDS = 0.01
DEADLINE_SECONDS = 60


def roll(stack: ComposeStack, version: int) -> float:
    """Seconds to the answer. Returns when the machine is idle again."""
    before = stack.status()["active"]
    began = time.perf_counter()
    answer = stack.roll(MODEL, version)
    taken = time.perf_counter() - began
    if answer["active"] == before:
        raise RuntimeError("a rollout launched no server")
    stack.wait_for(lambda: len(stack.workloads()) == SERVERS, "the end of the server before the last")
    return taken


@contextmanager
def create_server(stack: ComposeStack, docker: DirectConnection, version: int) -> Iterator[str]:
    """One that the router does not know; its id."""
    body = {
        "Image": f"{stack.project}/server-{TRAINER}",
        "Env": [
            f"SERVE_MODEL_URI=models:/{MODEL}/{version}",
            "SERVE_PORT=8080",
            "MLFLOW_TRACKING_URI=http://mlflow:5000",
        ],
        # The host has no address in the network of servers; MLflow is in this one, too.
        "HostConfig": {"NetworkMode": f"{stack.project}-trainers", "Init": True},
    }
    made = json.loads(ask(docker, "POST", "/v1.41/containers/create", json.dumps(body)))["Id"]
    try:
        yield made
    finally:
        ask(docker, "DELETE", f"/v1.41/containers/{made}?force=1")


def start_by_hand(stack: ComposeStack, docker: DirectConnection, version: int) -> float:
    """Seconds to the first prediction."""
    began = time.perf_counter()
    with create_server(stack, docker, version) as made:
        ask(docker, "POST", f"/v1.41/containers/{made}/start")
        networks = json.loads(ask(docker, "GET", f"/v1.41/containers/{made}/json"))["NetworkSettings"][
            "Networks"
        ]
        address = networks[f"{stack.project}-trainers"]["IPAddress"]
        while not predicts(address):
            if time.perf_counter() - began > DEADLINE_SECONDS:
                raise RuntimeError(f"the server by hand does not predict within {DEADLINE_SECONDS} s")
            time.sleep(LOOK_SECONDS)
        return time.perf_counter() - began


def predicts(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=10)
    try:
        connection.request("POST", "/invocations", body=json.dumps(ROWS), headers=JSON)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def measure(stack: ComposeStack, docker: DirectConnection, times: int) -> tuple[list[float], list[float]]:
    """By hand and through the router, in turn, so that both meet the same moments of the machine."""
    by_hand: list[float] = []
    rolled: list[float] = []
    for number in range(times):
        version = 1 + number % 2
        by_hand.append(start_by_hand(stack, docker, version))
        rolled.append(roll(stack, version))
    return by_hand, rolled


def read_phases(stack: ComposeStack, times: int) -> dict[str, list[float]]:
    """Seconds that the last rollouts spent in each phase before the switch."""
    spent: dict[str, list[float]] = {}
    for rollout in stack.call("GET", f"/admin/rollouts?limit={times}").json():
        entered = sorted(rollout["entered"].items(), key=lambda each: float(each[1]))
        for (phase, since), (_, until) in pairwise(entered):
            if phase in PHASES:
                spent.setdefault(phase, []).append(until - since)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--times", type=int, default=12)
    times = parser.parse_args().times
    address = ensure_engine()
    with run_compose_stack(address) as stack:
        say("training two versions, and rolling each out once")
        for _ in range(SERVERS):
            stack.post(f"/admin/train/{TRAINER}")
        for version in (1, 2):
            stack.roll(MODEL, version)
        print_heading(
            f"docker_roll: {times} rollouts of {TRAINER} over the compose stack, old server kept warm"
        )
        docker = DirectConnection(Path(address.removeprefix("unix://")))
        by_hand, rolled = measure(stack, docker, times)
        docker.close()
        phases = read_phases(stack, times)
    rows = [
        ["`docker create`, `start` to the first prediction", *tell(by_hand)],
        ["`POST /admin/roll` to its answer", *tell(rolled)],
    ]
    print_table((f"{times} times each, in turn", "p50", "least", "most"), rows)
    print()
    print_table(list(phases), [[tell_seconds(each) for each in phases.values()]])
    quick = max(rolled) <= WANTED_SECONDS
    print(f"\nratio {median(rolled) / median(by_hand):.2f};", end=" ")
    print(f"wanted: at most {WANTED_SECONDS} s: {'reached' if quick else 'MISSED'}", flush=True)


def tell(seconds: Sequence[float]) -> list[str]:
    return [f"{value:.2f} s" for value in (median(seconds), min(seconds), max(seconds))]


if __name__ == "__main__":
    main()
