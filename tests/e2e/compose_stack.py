"""The compose stack as users get it, on the machine's engine, beside any other stack there."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from scripts.demo_run import ROWS, TRAINER
from scripts.service_commands import ROOT
from tests.services.engine import run_docker
from tests.services.marks import new_mark
from tests.services.ports import find_free_port
from tests.services.waiting import wait_for

# Under the project's name, so they go with it.
BUILT = ("router", "mlflow", "socket-proxy", f"trainer-{TRAINER}", f"server-{TRAINER}")
WAIT_SECONDS = 60.0
PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 180}


def local_address(port: int) -> str:
    return f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class ComposeStack:
    docker_host: str
    project: str = field(default_factory=new_mark)
    router_port: int = field(default_factory=find_free_port)
    public_port: int = field(default_factory=find_free_port)
    mlflow_port: int = field(default_factory=find_free_port)

    @property
    def router_url(self) -> str:
        return local_address(self.router_port)

    @property
    def public_url(self) -> str:
        return local_address(self.public_port)

    @property
    def mlflow_url(self) -> str:
        return local_address(self.mlflow_port)

    # --- Docker -----------------------------------------------------------------------------------

    def docker(self, *arguments: str) -> str:
        return run_docker(self.docker_host, *arguments)

    def compose(self, *arguments: str, **settings: str) -> str:
        """With the defaults but for `settings`, whatever a developer's `.env` says."""
        given = ("compose", "--project-directory", str(ROOT), "--env-file", os.devnull)
        return run_docker(self.docker_host, *given, *arguments, environment=self.variables() | settings)

    def variables(self) -> dict[str, str]:
        socket = Path(self.docker_host.removeprefix("unix://"))
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "ROLLOUT_BAKE_SEC": "0",
            "ROUTER_PORT": str(self.router_port),
            "PROXY_PUBLIC_PORT": str(self.public_port),
            "MLFLOW_SERVICE_PORT": str(self.mlflow_port),
            "DOCKER_SOCKET": str(socket),
            "DOCKER_GROUP": str(socket.stat().st_gid),
            # As every stack of the tests, so that their images are built once, and again from the cache.
            "IMAGE_REVISION": "unknown",
            "IMAGE_SOURCE": "",
            "READ_ONLY_WORKLOADS": "true",  # the stricter way; the demo's test has the default
        }

    def start(self) -> None:
        self.compose("--profile", "models", "build")
        self.compose("up", "--detach", "--wait", "--no-build")

    def close(self) -> None:
        """The router first: it would start a server again that it has to lose."""
        self.compose("stop", "router")
        if workloads := self.workloads("--all"):
            self.docker("rm", "--force", "--volumes", *workloads)
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
        if caches := self.docker(
            "volume", "ls", "-q", "--filter", f"label=switchyard.instance={self.project}"
        ):
            self.docker("volume", "rm", *caches.split())
        self.docker("image", "rm", *(f"{self.project}/{name}" for name in BUILT))

    def workloads(self, *options: str) -> list[str]:
        """Trainers and servers of this stack."""
        return self.docker(
            "ps", "--quiet", "--filter", f"label=switchyard.instance={self.project}", *options
        ).split()

    def addresses(self, container: str) -> dict[str, str]:
        """Its address in each of its networks, whose names lack the project's."""
        networks = json.loads(
            self.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container)
        )
        return {
            name.removeprefix(self.project).lstrip("-_"): network["IPAddress"]
            for name, network in networks.items()
        }

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service)

    def gateways(self) -> set[str]:
        """The addresses that Docker sets aside for the host in the stack's networks, used or not."""
        ours = ("network", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        asked = ("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}")
        return set(self.docker(*asked, *self.docker(*ours).split()).split())

    # --- what a test asks -------------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, **options: Any) -> httpx.Response:
        return httpx.request(method, f"{self.router_url}{path}", json=body, **PLAIN, **options)

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        answer = self.call("POST", path, body if body is not None else {})
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def roll(self, model: str, version: int) -> dict[str, Any]:
        return self.post("/admin/roll", {"name": model, "ref": version, "wait_ready_seconds": 120})

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", "/status").json()
        return found

    def history(self) -> list[str]:
        """Every training and rollout that is recorded."""
        listed = [self.call("GET", f"/admin/{kind}").json() for kind in ("trainings", "rollouts")]
        return [record["id"] for records in listed for record in records]

    def predict(self) -> httpx.Response:
        return httpx.post(f"{self.public_url}/invocations", json=ROWS, **PLAIN)

    def is_ready(self) -> bool:
        return self.call("GET", "/readyz").status_code == 200

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        wait_for(holds, what, seconds, lambda: self.compose("logs", "--tail", "60", "router"))


@contextmanager
def run_compose_stack(docker_host: str) -> Iterator[ComposeStack]:
    stack = ComposeStack(docker_host)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()
