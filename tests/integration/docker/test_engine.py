"""The engine that everything on Docker is tested with, and the base images that may be stand-ins."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.service_commands import ROOT
from tests.services.engine import BASE_IMAGE, run_docker
from tests.services.engine_line import EngineLine
from tests.services.restartable_engine import PrivateEngine, run_restartable_engine

BUILD_WITH_PIP = f"""
FROM {BASE_IMAGE}
RUN pip install --quiet --root-user-action=ignore six==1.17.0
"""


def test_a_second_call_of_the_script_changes_nothing_and_says_nothing(docker_host: str) -> None:
    images = ("image", "inspect", "--format", "{{.Id}}", BASE_IMAGE, "caddy:2.11.4")
    before = run_docker(docker_host, *images)
    again = subprocess.run([ROOT / "scripts" / "get-engine"], capture_output=True, text=True, check=True)
    assert (again.stdout.strip(), again.stderr) == (docker_host, "")
    assert run_docker(docker_host, *images) == before


def test_an_engine_that_is_named_and_does_not_answer_is_not_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    refused = subprocess.run([ROOT / "scripts" / "get-engine"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: no engine answers at DOCKER_HOST=unix:///nowhere/docker.sock")


def test_the_base_image_runs_python_as_the_official_one_does(docker_host: str) -> None:
    script = "import shutil, sys; print(sys.version_info[:2], shutil.which('python'), shutil.which('curl'))"
    found = run_docker(docker_host, "run", "--rm", BASE_IMAGE, "python", "-c", script)
    assert found == "(3, 13) /usr/local/bin/python None"


def test_pip_installs_a_package_while_an_image_is_built(docker_host: str) -> None:
    image = run_docker(docker_host, "build", "--no-cache", "--quiet", "-", text=BUILD_WITH_PIP)
    try:
        version = ("python", "-c", "import six; print(six.__version__)")
        assert run_docker(docker_host, "run", "--rm", "--network=none", image, *version) == "1.17.0"
    finally:
        run_docker(docker_host, "image", "rm", image)


def test_caddy_runs_without_capabilities_except_the_one_its_binary_holds(docker_host: str) -> None:
    hardened = ("run", "--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    version = run_docker(
        docker_host, *hardened, "--cap-add=NET_BIND_SERVICE", "caddy:2.11.4", "caddy", "version"
    )
    assert "2.11.4" in version
    with pytest.raises(RuntimeError, match="operation not permitted"):
        run_docker(docker_host, *hardened, "caddy:2.11.4", "caddy", "version")


def test_compose_and_buildx_are_there(docker_host: str) -> None:
    assert run_docker(docker_host, "compose", "version", "--short").lstrip("v").startswith("2.")
    assert "buildx" in run_docker(docker_host, "buildx", "version")


def test_a_restartable_engine_that_is_killed_comes_back_with_its_containers(docker_host: str) -> None:
    with run_restartable_engine(docker_host, "--live-restore") as engine:
        check_that_a_kill_passes_by_a_container(engine, docker_host)


def test_a_line_to_the_engine_that_is_cut_looks_like_a_restart(
    docker_host: str, socket_directory: Path
) -> None:
    line = EngineLine(socket_directory, docker_host)
    line.start()
    try:
        check_that_a_kill_passes_by_a_container(line, docker_host)
    finally:
        line.delete()


def check_that_a_kill_passes_by_a_container(engine: PrivateEngine | EngineLine, docker_host: str) -> None:
    engine.take_image("caddy:2.11.4", docker_host)
    container = engine.docker("run", "--detach", "caddy:2.11.4", "sleep", "1000")
    try:
        with ThreadPoolExecutor() as pool:
            events = pool.submit(engine.docker, "events", "--filter", "event=never")
            engine.kill()
            assert isinstance(events.exception(), RuntimeError)
        with pytest.raises(RuntimeError, match="Cannot connect"):
            engine.docker("version")
    finally:
        engine.start()
        (state,) = json.loads(engine.docker("inspect", container))
        engine.docker("rm", "--force", container)
    assert state["State"]["Running"]
    assert state["NetworkSettings"]["Gateway"] == engine.gateway
