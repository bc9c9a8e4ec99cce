"""Operations on the compose stack: backup, restore, and what docs/operations.md says of cutting it back.

It has a stack of its own, since it deletes one.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from scripts.demo_run import ROWS, TRAINER
from scripts.service_commands import ROOT
from tests.e2e.compose_stack import ComposeStack, run_compose_stack
from tests.services.clients import four_kinds_of_clients

pytestmark = pytest.mark.xdist_group("compose")

MODEL = "DiabetesRF"
RATE = 50


def run(
    stack: ComposeStack, *command: str | Path, variables: Mapping[str, str] = MappingProxyType({})
) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **stack.variables(), **variables}
    environment |= {"RUNTIME": "docker", "DOCKER_HOST": stack.docker_host}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def run_script(stack: ComposeStack, name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return run(stack, ROOT / "scripts" / name, *arguments)


def run_documented(stack: ComposeStack, variables: Mapping[str, str]) -> None:
    """Each shell block of the page that needs no more than these."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        done = run(stack, "bash", "-euo", "pipefail", "-c", block, variables=variables)
        assert done.returncode == 0, done.stderr


def count_models(stack: ComposeStack) -> int:
    return len(stack.compose("exec", "-T", "mlflow", "find", "/mlflow/artifacts", "-name", "MLmodel").split())


def test_a_stack_whose_volumes_were_deleted_serves_again_what_its_backup_says(
    docker_host: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar.gz"
    with run_compose_stack(docker_host) as stack:
        answer = stack.post(f"/admin/train_then_roll/{TRAINER}")
        offered = (f"--body={json.dumps(ROWS)}", "--slow-upload")
        with four_kinds_of_clients(stack.public_url, tmp_path / "load.json", RATE, *offered) as load:
            packed = run_script(stack, "backup", file)
        assert packed.returncode == 0, packed.stderr
        assert f"default serves models:/{MODEL}/1" in packed.stdout
        assert load.report["failed"] == 0, load.report["reasons"]
        prediction = stack.predict().json()

        refused = run_script(stack, "restore", file)
        assert refused.returncode == 1
        assert "the stack runs" in refused.stderr
        deleted = run_script(stack, "down", "--wipe")
        assert deleted.returncode == 0, deleted.stderr

        restored = run_script(stack, "restore", file)
        assert restored.returncode == 0, restored.stderr
        status = stack.status()
        assert (status["model_name"], status["model_version"], status["healthy"]) == (MODEL, 1, True)
        assert stack.predict().json() == prediction
        (training,) = stack.call("GET", "/admin/trainings").json()
        assert training["run_id"] == answer["run_id"]

        assert stack.post(f"/admin/train/{TRAINER}")["version"] == 2
        assert count_models(stack) == 2
        run_documented(stack, {"MODEL": MODEL, "VERSION": "2", "AGE": "0s", "HOURS": "8760h"})
        assert count_models(stack) == 1
        gone = stack.call("POST", "/admin/roll", {"name": MODEL, "ref": 2})
        assert gone.status_code == 404
        assert stack.roll(MODEL, 1)["version"] == 1
