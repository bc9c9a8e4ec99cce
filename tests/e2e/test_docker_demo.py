"""The demo on Docker, as a person types it: images, stack, a model trained and served in containers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.test_demo import make
from tests.services.engine import run_docker
from tests.services.marks import new_mark
from tests.services.ports import find_free_port
from tests.services.waiting import wait_for

PORTS = ("ROUTER_PORT", "PROXY_PUBLIC_PORT", "MLFLOW_SERVICE_PORT")


@pytest.fixture
def installation(docker_host: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Its environment; a name of its own for all that it makes."""
    name = new_mark()
    settings = {setting: str(find_free_port()) for setting in PORTS}
    environment = dict(os.environ) | settings
    environment |= {"RUNTIME": "docker", "DOCKER_HOST": docker_host, "COMPOSE_PROJECT_NAME": name}
    # As in the other tests, whose images are then built already.
    environment |= {"IMAGE_REVISION": "unknown", "IMAGE_SOURCE": ""}
    yield environment
    make("down", environment, tmp_path / "down.txt")
    for volume in run_docker(docker_host, "volume", "ls", "--quiet", "--filter", f"name={name}").split():
        run_docker(docker_host, "volume", "rm", volume)
    for image in run_docker(docker_host, "image", "ls", "--quiet", f"{name}/*").split():
        run_docker(docker_host, "image", "rm", "--force", image)


def test_the_demo_on_docker_trains_and_serves_in_containers(
    installation: dict[str, str], docker_host: str, tmp_path: Path
) -> None:
    name = installation["COMPOSE_PROJECT_NAME"]
    told = make("demo", installation, tmp_path / "demo.txt")
    assert re.search(r"^prediction +\{\"predictions\": \[[\d.]+\]\}$", told, re.MULTILINE)
    assert "models:/DiabetesRF/1" in told

    ours = ("ps", "--filter", f"label=switchyard.instance={name}", "--format", "{{.Names}}")
    (server,) = run_docker(docker_host, *ours).split()
    router = f"http://localhost:{installation['ROUTER_PORT']}"
    status = httpx.get(f"{router}/status", trust_env=False).json()
    assert (status["active"], status["healthy"], status["model_version"]) == (server, True, 1)
    (training,) = httpx.get(f"{router}/admin/trainings", trust_env=False).json()
    api = f"http://localhost:{installation['MLFLOW_SERVICE_PORT']}/api/2.0/mlflow/runs/get"
    run = httpx.get(api, params={"run_id": training["run_id"]}, trust_env=False).json()["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert run["info"]["status"] == "FINISHED"
    assert tags["switchyard.image_digest"].startswith("sha256:")

    run_docker(docker_host, "kill", server)
    public = f"http://localhost:{installation['PROXY_PUBLIC_PORT']}/ping"
    # A new one takes a few seconds: a request waits for it, but on a busy machine not long enough.
    wait_for(
        lambda: httpx.get(public, timeout=60, trust_env=False).status_code == 200,
        "a server in place of the killed one",
        120,
        lambda: run_docker(docker_host, *ours),
    )
    assert run_docker(docker_host, *ours).split() != [server]
