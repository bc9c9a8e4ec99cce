"""Backup and restore of the compose stack. It has a stack of its own, since it deletes one."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from scripts.demo_run import ROWS, TRAINER
from scripts.service_commands import ROOT
from tests.e2e.compose_stack import ComposeStack, run_compose_stack
from tests.services.clients import four_kinds_of_clients

pytestmark = pytest.mark.xdist_group("compose")

MODEL = "DiabetesRF"
RATE = 50


def run_script(stack: ComposeStack, name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ) | stack.variables()
    environment |= {"RUNTIME": "docker", "DOCKER_HOST": stack.docker_host}
    return subprocess.run(
        [ROOT / "scripts" / name, *arguments], env=environment, capture_output=True, text=True
    )


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
