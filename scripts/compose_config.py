"""The compose file as Docker reads it: with every variable filled in. Only the standard library."""

import json
import subprocess
from typing import Any

from scripts.service_commands import ROOT
from scripts.stack_error import StackError

DOCKER = str(ROOT / "scripts" / "docker")


def read_config() -> dict[str, Any]:
    done = subprocess.run([DOCKER, "compose", "config", "--format", "json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(f"docker-compose.yaml cannot be read: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def published_address(service: dict[str, Any]) -> str:
    """Host and port of its only one, for who asks from this machine."""
    (port,) = service["ports"]
    anywhere = {"", "0.0.0.0", "::"}  # noqa: S104
    host = port.get("host_ip", "")
    return f"{'127.0.0.1' if host in anywhere else host}:{port['published']}"
