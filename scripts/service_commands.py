"""How the two services that are not ours are started: one place for demo, tests and benchmarks."""

import os
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CADDY = ROOT / ".local" / "caddy" / "caddy"
MLFLOW = ROOT / ".local" / "mlflow" / "bin" / "mlflow"


def mlflow_command(directory: Path, host: str, port: int, allowed_hosts: Sequence[str]) -> list[str]:
    """An MLflow server on SQLite that serves artifacts.

    `allowed_hosts` are the Host headers it accepts, each as `name:port`: the setting replaces MLflow's own
    list, and any other Host gets 403.
    """
    return [
        str(MLFLOW),
        "server",
        f"--backend-store-uri=sqlite:///{directory / 'mlflow.db'}",
        f"--artifacts-destination={directory / 'artifacts'}",
        f"--host={host}",
        f"--port={port}",
        "--workers=1",
        f"--allowed-hosts={','.join(allowed_hosts)}",
    ]


def mlflow_environment() -> dict[str, str]:
    """Without background jobs, which nothing here uses, and without calls to the outside."""
    return {
        **service_environment(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def caddy_command(config: Path) -> list[str]:
    return [str(CADDY), "run", "--config", str(config)]


def caddy_environment(directory: Path) -> dict[str, str]:
    """Caddy keeps files of its own (an autosaved config, certificates): in `directory`, not in HOME."""
    return {
        **service_environment(),
        "XDG_CONFIG_HOME": str(directory / "caddy-config"),
        "XDG_DATA_HOME": str(directory / "caddy-data"),
    }


def service_environment() -> dict[str, str]:
    """What any program needs, and none of the settings or secrets of whoever started us."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}
