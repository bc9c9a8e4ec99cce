"""A real Docker engine: the machine's, which all tests share. To stop or kill one: see restartable_engine.py.

Where none answers and none can be started the tests fail; nothing is skipped.
"""

import os
import subprocess
from collections.abc import Mapping

from scripts.service_commands import ROOT

BASE_IMAGE = "python:3.13-slim"


def ensure_engine() -> str:
    """A value for DOCKER_HOST. The script locks the machine, so any number of workers may ask at once."""
    done = subprocess.run([ROOT / "scripts" / "get-engine"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"these tests need a Docker engine: {done.stderr.strip()}")
    return done.stdout.strip()


def run_docker(
    address: str, *arguments: str, text: str | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Docker's command line on this engine, given `text` to read. Returns what it prints."""
    done = subprocess.run(
        [ROOT / "scripts" / "docker", *arguments],
        env={**os.environ, **(environment or {}), "DOCKER_HOST": address},
        input=text or "",
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr[-4000:]}")
    return done.stdout.strip()
