"""The stack on Docker, as the demo sees it: brought up by scripts/up, and asked where it is published."""

import subprocess
from collections.abc import Iterator

from scripts.compose_config import published_address, read_config
from scripts.service_commands import ROOT
from scripts.stack_error import StackError


class ComposeStack:
    logs = "scripts/docker compose logs"
    stop_command = "RUNTIME=docker make down      (RUNTIME=docker scripts/down --wipe deletes its state too)"

    def __init__(self) -> None:
        self.router_url = self.public_url = self.mlflow_url = self.token = ""

    def bring_up(self) -> Iterator[str]:
        """Yields a line for each thing it does. Raises StackError."""
        yield "scripts/up: builds the images and starts the stack (the first time it installs packages)"
        if subprocess.run([ROOT / "scripts" / "up"]).returncode != 0:
            raise StackError(f"the stack does not come up; see above, and: {self.logs}")
        services = read_config()["services"]
        self.token = services["router"]["environment"]["SWITCHYARD_TOKEN"]
        self.router_url, self.public_url, self.mlflow_url = (
            f"http://{published_address(services[name])}" for name in ("router", "caddy", "mlflow")
        )
        yield f"ready: MLflow {self.mlflow_url}, Caddy {self.public_url}, router {self.router_url}"
