"""The router is published to this machine alone, or asks for a token: tried with its own container."""

import pytest

from tests.e2e.compose_stack import ComposeStack

pytestmark = pytest.mark.xdist_group("compose")

RUN = ("run", "--rm", "--no-deps", "--no-TTY")
LOAD = ("--entrypoint=python", "router", "-c", "from router.settings import Settings; Settings.load()")


def test_a_router_that_is_published_to_others_does_not_start_without_a_token(stack: ComposeStack) -> None:
    with pytest.raises(RuntimeError, match=r"SWITCHYARD_TOKEN: must be set before .* at 0\.0\.0\.0"):
        stack.compose(*RUN, "router", ROUTER_BIND="0.0.0.0")  # noqa: S104


def test_with_a_token_it_may_be_published_to_others(stack: ComposeStack) -> None:
    stack.compose(*RUN, *LOAD, ROUTER_BIND="0.0.0.0", SWITCHYARD_TOKEN="x" * 16)  # noqa: S104


def test_everything_is_published_to_this_machine_alone(stack: ComposeStack) -> None:
    ports = stack.docker(
        "ps", "--filter", f"label=com.docker.compose.project={stack.project}", "--format", "{{.Ports}}"
    )
    published = [port for line in ports.splitlines() for port in line.split(", ") if "->" in port]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)
