"""A trainer that logs and registers a model in a few milliseconds, or does what `BEHAVIOUR` says instead."""

import os
import signal
import sys
import time
from pathlib import Path

from tiny.mlflow import Tracking

EXAMPLE = '{"inputs": [[1.0]]}'
FLOOD_BYTES = 100 * 1024 * 1024


def train() -> None:
    behaviour = os.environ.get("BEHAVIOUR", "well")
    name = os.environ.get("REGISTERED_MODEL_NAME", "Tiny")
    print(f"training, {behaviour}", flush=True)
    hold = os.environ.get("HOLD_UNTIL")  # a file: the trainer goes on once it is there
    while hold and not Path(hold).exists():
        time.sleep(0.01)
    if behaviour == "logs-nothing":
        return
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "sleeps":
        time.sleep(3600)
    if behaviour == "floods":
        line = b"x" * 1023 + b"\n"
        for _ in range(FLOOD_BYTES // len(line)):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    tracking = Tracking()
    tracking.log_metric("rmse", 42.0)
    run_id = tracking.create_other_run() if behaviour == "other-run" else tracking.run_id
    example = None if behaviour == "no-example" else EXAMPLE
    model = tracking.log_model(run_id, example)
    if behaviour == "registers-none":
        return
    tracking.register("SomethingElse" if behaviour == "other-name" else name, run_id, model)
    if behaviour == "two-versions":
        tracking.register(name, run_id, model)
    print("registered", flush=True)
    if behaviour == "fails-after-registering":
        print("and now it fails", flush=True)
        sys.exit(1)
