"""`scripts/backup` and `scripts/restore` on the stack of `make demo`, as a person types them."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.service_commands import ROOT, service_environment
from tests.e2e.test_demo import PORTS
from tests.services.caddy import short_directory
from tests.services.clients import four_kinds_of_clients
from tests.services.ports import find_free_port
from tests.services.yard import choose_ports

START = "from scripts.stack import Stack; print(*Stack.from_environment().bring_up(), sep='\\n')"
MODEL = "Tiny"
RATE = 50


@dataclass(frozen=True)
class House:
    """A stack in a home and on ports of its own."""

    home: Path
    environment: dict[str, str]

    def run(self, *command: str | Path) -> "subprocess.CompletedProcess[str]":
        """To a file, as background processes must not hold a pipe open."""
        log = self.home.with_name(f"{self.home.name}.txt")
        with log.open("w+") as output:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, log.read_text())

    def succeed(self, *command: str | Path) -> str:
        done = self.run(*command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PROXY_PUBLIC_PORT']}"

    def call(self, method: str, path: str) -> Any:
        url = f"http://127.0.0.1:{self.environment['ROUTER_PORT']}{path}"
        body: dict[str, object] | None = {} if method == "POST" else None
        answer = httpx.request(method, url, json=body, timeout=120, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def predict(self) -> Any:
        body = {"inputs": [[1.0]]}
        answer = httpx.post(f"{self.public_url}/invocations", json=body, timeout=30, trust_env=False)
        return answer.raise_for_status().json()["predictions"]

    def records(self) -> list[dict[str, Any]]:
        return [*self.call("GET", "/admin/trainings"), *self.call("GET", "/admin/rollouts")]


@pytest.fixture
def house() -> Iterator[House]:
    with short_directory() as directory:
        specs = directory / "specs.json"
        entry = {"source": "tests/sources/well", "env": {"REGISTERED_MODEL_NAME": MODEL}}
        specs.write_text(json.dumps({"well": entry}))
        settings = {name: str(find_free_port()) for name in PORTS}
        settings |= {"SWITCHYARD_HOME": str(directory / "home"), "SPECS_PATH": str(specs)}
        settings |= {"PROCESS_PORTS": choose_ports()}
        installing = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        house = House(directory / "home", service_environment() | installing | settings)
        try:
            yield house
        finally:
            house.succeed(ROOT / "scripts" / "down", "--wipe")


def test_a_stack_that_was_wiped_serves_again_what_its_backup_says(house: House, tmp_path: Path) -> None:
    backup, restore, down = (ROOT / "scripts" / name for name in ("backup", "restore", "down"))
    file = tmp_path / "backup.tar.gz"
    house.succeed(ROOT / ".venv" / "bin" / "python", "-c", START)
    for _ in range(2):
        house.call("POST", "/admin/train_then_roll/well")
    with four_kinds_of_clients(house.public_url, tmp_path / "load.json", RATE) as load:
        told = house.succeed(backup, file)
    assert load.report["failed"] == 0, load.report["reasons"]
    assert f"default serves models:/{MODEL}/2" in told
    assert file.stat().st_mode & 0o777 == 0o600
    records, prediction = house.records(), house.predict()
    house.call("POST", "/admin/train_then_roll/well")

    refused = house.run(restore, file)
    assert refused.returncode == 1
    assert "the stack runs (router, caddy, mlflow, " in refused.stdout
    assert house.call("GET", "/status")["model_version"] == 3
    house.succeed(down)
    refused = house.run(restore, file)
    assert refused.returncode == 1
    assert "the stack has a state already" in refused.stdout
    house.succeed(down, "--wipe")

    house.succeed(restore, file)
    status = house.call("GET", "/status")
    assert (status["model_name"], status["model_version"], status["healthy"]) == (MODEL, 2, True)
    assert house.predict() == prediction
    assert house.records() == records
    assert house.call("POST", "/admin/rollback")["version"] == 1
    assert house.call("POST", "/admin/train_then_roll/well")["version"] == 3

    house.succeed(restore, file, "--replace")
    assert house.call("GET", "/status")["model_version"] == 2
    assert house.records() == records
