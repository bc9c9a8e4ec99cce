"""`bench.load` beside a test: four kinds of clients, in a process of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from scripts.service_commands import ROOT

START_SECONDS = 30.0
LOOK_SECONDS = 0.02


class Load:
    """What the clients saw is in `report` once the block has ended."""

    report: dict[str, Any]


@contextmanager
def four_kinds_of_clients(public_url: str, output: Path, rate: float, *options: str) -> Iterator[Load]:
    command = [sys.executable, "-m", "bench.load", public_url, f"--rate={rate}", "--requests=1000000"]
    load = Load()
    with output.open("wb") as file:
        clients = subprocess.Popen([*command, *options], stdout=file, cwd=ROOT)
    try:
        wait_until_connected(clients.pid)
        yield load
        assert clients.poll() is None, "the clients ended before they were told to"
    finally:
        clients.terminate()
        clients.wait()
    load.report = json.loads(output.read_text())


def wait_until_connected(pid: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not psutil.Process(pid).net_connections("tcp"):
        assert time.monotonic() < deadline, "the clients sent nothing"
        time.sleep(LOOK_SECONDS)
