"""One compose stack for all tests that leave it in service."""

from collections.abc import Iterator

import pytest

from scripts.demo_run import TRAINER
from tests.e2e.compose_stack import ComposeStack, run_compose_stack


@pytest.fixture(scope="session")
def stack(docker_host: str) -> Iterator[ComposeStack]:
    with run_compose_stack(docker_host) as stack:
        yield stack


@pytest.fixture(scope="module")
def server(stack: ComposeStack) -> str:
    """The name of a server that serves."""
    active = stack.status()["active"]
    return str(active or stack.post(f"/admin/train_then_roll/{TRAINER}")["active"])
