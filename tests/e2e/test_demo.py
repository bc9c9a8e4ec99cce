"""The two commands of the README, as a person types them."""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx

from scripts.service_commands import ROOT, service_environment
from tests.services.caddy import short_directory
from tests.services.ports import find_free_port

DEADLINE_SECONDS = 600
PORTS = ("ROUTER_PORT", "PROXY_PUBLIC_PORT", "PROXY_IDLE_PORT", "MLFLOW_SERVICE_PORT")


def make(target: str, environment: dict[str, str], log: Path) -> str:
    """What it prints. To a file, as background processes must not hold the caller's pipe open."""
    with log.open("w+") as output:
        done = subprocess.run(
            ["make", target],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_SECONDS,
        )
    assert done.returncode == 0, log.read_text()
    return log.read_text()


def test_one_command_brings_a_prediction_a_second_reuses_the_stack_and_one_ends_it(tmp_path: Path) -> None:
    with short_directory() as home:
        settings = {name: str(find_free_port()) for name in PORTS}
        installing = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        environment = service_environment() | installing | settings | {"SWITCHYARD_HOME": str(home)}
        try:
            first = make("demo", environment, tmp_path / "first.txt")
            assert re.search(r"^prediction +\{\"predictions\": \[[\d.]+\]\}$", first, re.MULTILINE)
            assert "models:/DiabetesRF/1" in first
            run = re.search(r"/runs/([0-9a-f]{32})$", first, re.MULTILINE)
            assert run is not None
            mlflow = f"http://localhost:{settings['MLFLOW_SERVICE_PORT']}/api/2.0/mlflow/runs/get"
            assert httpx.get(mlflow, params={"run_id": run[1]}).json()["run"]["info"]["status"] == "FINISHED"

            second = make("demo", environment, tmp_path / "second.txt")
            assert "starting" not in second
            assert "models:/DiabetesRF/2" in second
        finally:
            records = [json.loads(path.read_text()) for path in (home / "run").glob("*.json")]
            last = make("down", environment, tmp_path / "last.txt")
        assert len(records) == 3
        assert len(re.findall(r"^down: (?:router|caddy|mlflow|server \S+) stopped$", last, re.MULTILINE)) == 5
