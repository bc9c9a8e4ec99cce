"""wrk, a load generator in C: one in Python would be slower than what it measures.

It keeps its connections, does not pipeline, and has a core of its own.
"""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from scripts.service_commands import ROOT, service_environment

ANSWER_SECONDS = 30
# Only answers are among the requests: one with a bad status is, a broken connection is not.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = io.open(os.getenv("BODY")):read("*a")
function done(summary, latency)
  local errors = summary.errors
  local told = '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "bad": %d, "broken": %d}'
  io.write('\\n', string.format(told,
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout), '\\n')
end
"""


@dataclass(frozen=True)
class Point:
    """What one server did for so many clients, each with one request at a time."""

    rate: float  # good answers a second
    p50: float  # seconds
    p99: float
    failed: int


def get_wrk() -> None:
    subprocess.run([str(ROOT / "scripts" / "get-wrk")], check=True)


def fire(url: str, body: bytes, clients: int, seconds: float, core: int) -> Point:
    with tempfile.TemporaryDirectory(prefix="sw-bench-") as folder:
        script, content = Path(folder, "post.lua"), Path(folder, "body")
        script.write_text(SCRIPT)
        content.write_bytes(body)
        command = ["taskset", "-c", str(core), "wrk", "--threads=1", f"--connections={clients}"]
        command += [f"--duration={seconds:g}s", f"--timeout={ANSWER_SECONDS}s", f"--script={script}", url]
        environment = service_environment() | {"BODY": str(content)}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    rate = (told["requests"] - told["bad"]) / (told["microseconds"] / 1e6)
    return Point(rate, told["p50"] / 1e6, told["p99"] / 1e6, told["bad"] + told["broken"])


def choose_cores() -> tuple[int, int]:
    """One for the server, one for the load."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("two cores are needed: one for the server, one for the load")
    return cores[0], cores[1]
