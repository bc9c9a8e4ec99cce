"""The stack's router in its container, except that it dies where a test says: see `crashing_router`."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from scripts.service_commands import ROOT
from tests.e2e.compose_stack import ComposeStack
from tests.integration.engine.killing import Call

# The state's volume, since the rest of the container is read-only.
PROGRAM, POINT = (f"/var/lib/switchyard/state/{name}" for name in ("crashing_router.py", "crash-at"))
OVERRIDE = f"""
services:
  router:
    entrypoint: [python, {PROGRAM}]
    environment: {{PYTHONPATH: /app, CRASH_POINT: {POINT}}}
    restart: "no"
"""


class MortalRouter:
    def __init__(self, stack: ComposeStack, nowhere: Path) -> None:
        """`nowhere`: an empty file."""
        self.stack = stack
        self._nowhere = nowhere

    @property
    def container(self) -> str:
        return self.stack.container("router")

    def die_at(self, point: str, call: Call) -> None:
        """On its way through what the call sets going."""
        self.stack.docker("exec", self.container, "sh", "-c", f"echo -n {point} > {POINT}")
        with suppress(httpx.TransportError):
            call.send(self.stack)
        self.stack.wait_for(self._is_killed, f"the router's death at {point}")
        self.stack.docker("cp", str(self._nowhere), f"{self.container}:{POINT}")

    def _is_killed(self) -> bool:
        state = "{{.State.Status}} {{.State.ExitCode}}"
        return self.stack.docker("inspect", "--format", state, self.container) == "exited 137"

    def revive(self) -> None:
        self.stack.compose("start", "router")
        self.stack.wait_for(self.stack.is_ready, "readiness")


@contextmanager
def run_mortal_router(stack: ComposeStack, directory: Path) -> Iterator[MortalRouter]:
    """In place of the stack's own, which is there again afterwards."""
    override, nowhere = directory / "override.yaml", directory / "nowhere"
    override.write_text(OVERRIDE)
    nowhere.touch()
    nowhere.chmod(0o666)  # so that whoever runs in the container may write to the copy
    router = MortalRouter(stack, nowhere)
    up = ("up", "--detach", "--no-build", "router")
    program = ROOT / "tests" / "services" / "crashing_router.py"
    stack.docker("cp", str(program), f"{router.container}:{PROGRAM}")
    try:
        stack.compose("--file", str(ROOT / "docker-compose.yaml"), "--file", str(override), *up)
        stack.wait_for(stack.is_ready, "readiness")
        yield router
    finally:
        stack.compose(*up)
        stack.wait_for(stack.is_ready, "readiness")
