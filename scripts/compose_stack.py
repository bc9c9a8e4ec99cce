"""The stack on Docker, as the demo sees it: brought up by scripts/up, and asked where it is published."""

import json
import subprocess
from collections.abc import Iterator

from scripts.service_commands import ROOT
from scripts.stack import StackError


class ComposeStack:
    logs = "scripts/docker compose logs"
    stop_command = "RUNTIME=docker make down      (RUNTIME=docker scripts/down --wipe deletes its state too)"

    def __init__(self) -> None:
        self.router_url = self.public_url = self.mlflow_url = ""

    def bring_up(self) -> Iterator[str]:
        """Yields a line for each thing it does. Raises StackError."""
        yield "scripts/up: builds the images and starts the stack (the first time it installs packages)"
        if subprocess.run([ROOT / "scripts" / "up"]).returncode != 0:
            raise StackError(f"the stack does not come up; see above, and: {self.logs}")
        services = read_services()
        self.router_url, self.public_url, self.mlflow_url = (
            f"http://localhost:{services[name]['ports'][0]['published']}"
            for name in ("router", "caddy", "mlflow")
        )
        yield f"ready: MLflow {self.mlflow_url}, Caddy {self.public_url}, router {self.router_url}"


def read_services() -> dict[str, dict[str, list[dict[str, str]]]]:
    """Of the compose file, with every variable filled in."""
    command = [str(ROOT / "scripts" / "docker"), "compose", "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(f"docker-compose.yaml cannot be read: {done.stderr.strip()}")
    services: dict[str, dict[str, list[dict[str, str]]]] = json.loads(done.stdout)["services"]
    return services
