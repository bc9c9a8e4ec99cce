"""A trainer that logs and registers a model in a few milliseconds, or does what `BEHAVIOUR` says instead."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from tiny.mlflow import Tracking

EXAMPLE = '{"inputs": [[1.0]]}'
FLOOD_BYTES = 100 * 1024 * 1024
HOG_BYTES, HOG_STEP = 1024 * 1024 * 1024, 8 * 1024 * 1024
FORKS = 150


def train() -> None:
    behaviour = os.environ.get("BEHAVIOUR", "well")
    name = os.environ.get("REGISTERED_MODEL_NAME", "Tiny")
    print(f"training, {behaviour}", flush=True)
    hold("HOLD_UNTIL")
    match behaviour:
        case "logs-nothing":
            return
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "shows-environment":
            print("environment", json.dumps(dict(os.environ)), flush=True)
        case "sleeps":
            time.sleep(3600)
        case "floods":
            flood()
        case "hogs-memory":
            hog_memory()
        case "forks":
            fork_much()
    register(behaviour, name)
    hold("HOLD_AT_END")
    if behaviour == "fails-after-registering":
        print("and now it fails", flush=True)
        sys.exit(1)


def register(behaviour: str, name: str) -> None:
    tracking = Tracking()
    tracking.log_metric("rmse", float(os.environ.get("RMSE", "42")))
    run_id = tracking.create_other_run() if behaviour == "other-run" else tracking.run_id
    example = None if behaviour == "no-example" else EXAMPLE
    signature = json.loads(os.environ.get("SIGNATURE", "{}"))
    model = tracking.log_model(run_id, example, signature, os.environ.get("HELD_OUT", ""))
    if behaviour == "registers-none":
        return
    tracking.register("SomethingElse" if behaviour == "other-name" else name, run_id, model)
    if behaviour == "two-versions":
        tracking.register(name, run_id, model)
    print("registered", flush=True)


def hold(variable: str) -> None:
    """Wait for the file that the variable names, if it is set."""
    path = os.environ.get(variable)
    while path and not Path(path).exists():
        time.sleep(0.01)


def flood() -> None:
    line = b"x" * 1023 + b"\n"
    for _ in range(FLOOD_BYTES // len(line)):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def hog_memory() -> None:
    hoard = [b"x" * HOG_STEP for _ in range(HOG_BYTES // HOG_STEP)]
    print(f"nobody stopped it at {len(hoard)} blocks", flush=True)


def fork_much() -> None:
    """Children that outlive it, were it not for the runtime."""
    for _ in range(FORKS):
        child = os.fork()
        if child == 0:
            time.sleep(3600)
        print("child", child, flush=True)
