"""scripts/up beside `.env`: what it finds out by itself, and what it was told."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.service_commands import ROOT

FOUND = ("DOCKER_SOCKET", "DOCKER_GROUP", "IMAGE_REVISION", "IMAGE_SOURCE")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With an engine whose client only tells the environment in which it brings the stack up."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(ROOT / "scripts" / "up", scripts)
    (tmp_path / "found.sock").touch()
    for name, text in {
        "get-engine": f"#!/bin/sh\necho unix://{tmp_path}/found.sock\n",
        "docker": f"""#!{sys.executable}
import os, sys
for name in {FOUND}:
    if "up" in sys.argv: print(name, os.environ.get(name))
""",
    }.items():
        (scripts / name).write_text(text)
        (scripts / name).chmod(0o755)
    return tmp_path


def bring_up(checkout: Path, **environment: str) -> dict[str, str]:
    """What Compose gets from the environment."""
    rest = {name: value for name, value in os.environ.items() if name not in FOUND}
    done = subprocess.run(
        [checkout / "scripts" / "up"], env=rest | environment, capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(FOUND))


def test_what_nobody_names_is_found(checkout: Path) -> None:
    group = str((checkout / "found.sock").stat().st_gid)
    found = bring_up(checkout, GIT_DIR="/nowhere")
    assert tuple(found[name] for name in FOUND) == (f"{checkout}/found.sock", group, "unknown", "")


def test_what_is_named_in_the_file_is_left_to_the_file(checkout: Path) -> None:
    (checkout / ".env").write_text("".join(f"{name}=told\n" for name in FOUND))
    assert set(bring_up(checkout).values()) == {"None"}


def test_the_group_is_of_the_socket_that_the_file_names(checkout: Path) -> None:
    (checkout / "found.sock").rename(checkout / "told.sock")
    (checkout / ".env").write_text(f'DOCKER_SOCKET="{checkout}/told.sock"\n#DOCKER_GROUP=0\n')
    found = bring_up(checkout)
    assert found["DOCKER_SOCKET"] == "None"
    assert found["DOCKER_GROUP"] == str((checkout / "told.sock").stat().st_gid)


def test_the_environment_comes_before_both(checkout: Path) -> None:
    (checkout / ".env").write_text("".join(f"{name}=told\n" for name in FOUND))
    told = dict.fromkeys(FOUND, "mine")
    assert bring_up(checkout, **told) == told
