"""What orchestration adds to the model's own time, side by side and in turn.

By hand means: the very command, environment and files that the router gave its child, copied from a running
one and started from here, against the same MLflow. What differs is only who looks after it.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import httpx
import psutil

from bench.figures import print_heading, print_table, say, tell_seconds
from bench.stage import BODY, FOREST, FOREST_MODEL, open_stage, roll, train_two
from router.runtimes.process_leftovers import MARK
from tests.services.ports import find_free_port
from tests.services.yard import Yard

LOOK_SECONDS = 0.005
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Program:
    command: list[str]
    environment: dict[str, str]
    folder: Path

    def with_environment(self, **changes: str) -> "Program":
        return replace(self, environment=self.environment | changes)

    def without(self, *names: str) -> "Program":
        kept = {name: value for name, value in self.environment.items() if name not in names}
        return replace(self, environment=kept)

    def start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def copy_child(yard: Yard, owner_prefix: str, kept: Path, acting: "Future[object]") -> Program:
    """Of the only workload whose id begins so, as soon as it runs."""
    workloads = yard.state / "process" / "workloads"
    while not acting.done():
        for started in workloads.glob(f"{owner_prefix}*/started.json"):
            child = psutil.Process(int(json.loads(started.read_text())["child"]))
            try:
                environment = child.environ()
            except psutil.NoSuchProcess:
                continue  # in the middle of its exec it has none
            if environment.get(MARK) == str(started.parent):  # past its exec
                shutil.copytree(child.cwd(), kept / owner_prefix)
                program = Program(child.cmdline(), environment, kept / owner_prefix)
                return program.with_environment(TMPDIR=str(kept))
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"no child of a workload {owner_prefix}... was seen; the answer was {acting.result()}")


def while_running(action: Callable[[], object], yard: Yard, owner_prefix: str, kept: Path) -> Program:
    """The program of the child that the action makes."""
    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(action)
        program = copy_child(yard, owner_prefix, kept, acting)
        acting.result()
    return program


def train_by_hand(program: Program) -> float:
    began = time.monotonic()
    process = program.start()
    if process.wait() != 0:
        raise RuntimeError(f"the trainer ended with {process.returncode}")
    return time.monotonic() - began


def start_by_hand(program: Program, client: httpx.Client) -> float:
    """Seconds to the first good prediction."""
    port = find_free_port()
    began = time.monotonic()
    process = program.with_environment(SERVE_PORT=str(port)).start()
    try:
        while not predicts(client, port):
            if process.poll() is not None or time.monotonic() - began > READY_SECONDS:
                raise RuntimeError("the server that was started by hand does not get ready")
            time.sleep(LOOK_SECONDS)
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


def predicts(client: httpx.Client, port: int) -> bool:
    headers = {"Content-Type": "application/json"}
    try:
        answer = client.post(f"http://127.0.0.1:{port}/invocations", content=BODY, headers=headers)
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def time_of(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def measure_training(yard: Yard, kept: Path, times: int) -> tuple[list[float], list[float]]:
    """By hand, and through the router."""

    def train() -> object:
        return yard.post(f"/admin/train/{FOREST}")

    say("training once, which installs the packages")
    # A run of its own: the one in the environment belongs to the router's training.
    program = while_running(train, yard, "trn_", kept).without("MLFLOW_RUN_ID")
    train_by_hand(program)  # both ways have been gone once, and everything is in the page cache
    by_hand, routed = [], []
    for number in range(times):
        say(f"training {number + 1} of {times}, by hand and through the router")
        by_hand.append(train_by_hand(program))
        routed.append(time_of(train))
    return by_hand, routed


def measure_rollout(yard: Yard, kept: Path, times: int) -> tuple[list[float], list[float]]:
    def roll_version(version: int) -> object:
        return roll(yard, FOREST_MODEL, version)

    first, second = train_two(yard, FOREST)
    program = while_running(lambda: roll_version(first), yard, "srv_", kept)
    by_hand, routed = [], []
    with httpx.Client(trust_env=False, timeout=30) as client:
        start_by_hand(program, client)
        for number in range(times):
            say(f"start {number + 1} of {times}, by hand and through the router")
            by_hand.append(start_by_hand(program, client))
            version = first if number % 2 else second
            routed.append(time_of(lambda version=version: roll_version(version)))  # type: ignore[misc]
    return by_hand, routed


def tell_row(what: str, by_hand: list[float], routed: list[float]) -> list[str]:
    added = median(routed) - median(by_hand)
    verdict = "reached" if added < 1 else "MISSED"
    ratio = median(routed) / median(by_hand)
    return [what, tell_seconds(by_hand), tell_seconds(routed), f"{added:+.2f} s ({verdict})", f"{ratio:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--times", type=int, default=7)
    times = parser.parse_args().times
    print_heading("overhead: what orchestration adds")
    with open_stage() as yard, tempfile.TemporaryDirectory(prefix="sw-bench-") as kept:
        rows = [
            tell_row("train: command to exit, POST to answer", *measure_training(yard, Path(kept), times)),
            tell_row("serve: exec to prediction, POST to switch", *measure_rollout(yard, Path(kept), times)),
        ]
    print_table((f"{times} times each, in turn", "by hand", "through the router", "added", "ratio"), rows)


if __name__ == "__main__":
    main()
