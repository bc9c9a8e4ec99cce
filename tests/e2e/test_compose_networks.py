"""What a trainer and a server of the compose stack can reach, tried from inside containers like theirs."""

import json
import socket
from collections.abc import Iterator

import pytest

from scripts.demo_run import TRAINER
from tests.e2e.compose_stack import ComposeStack

pytestmark = pytest.mark.xdist_group("compose")

# Prints which of the given `host:port` accept a connection. What is dropped takes the whole timeout.
LOOK = """
import concurrent.futures, json, socket, sys
def accepts(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
targets = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps([target for target, found in zip(targets, pool.map(accepts, targets)) if found]))
"""
MLFLOW = "mlflow:5000"


def reachable(stack: ComposeStack, role: str, targets: set[str]) -> set[str]:
    """Those of `targets` that a container of this role reaches."""
    image, network = f"switchyard/{role}-{TRAINER}", f"{stack.project}-{role}s"
    options = ("run", "--rm", "--cap-drop=ALL", f"--network={network}", "--entrypoint=python")
    return set(json.loads(stack.docker(*options, image, "-c", LOOK, *sorted(targets))))


@pytest.fixture
def server(stack: ComposeStack) -> str:
    """The name of a server that serves."""
    return str(stack.post(f"/admin/train_then_roll/{TRAINER}")["active"])


@pytest.fixture
def outside(stack: ComposeStack) -> Iterator[str]:
    """An address beyond the stack's internal networks: the host's, in a network where neither role is."""
    with socket.create_server(("0.0.0.0", 0)) as listener:  # noqa: S104
        yield f"{stack.gateway('_public')}:{listener.getsockname()[1]}"


def addresses_of(stack: ComposeStack, container: str, port: int) -> set[str]:
    return {f"{address}:{port}" for address in stack.addresses(container).values()}


def services_that_are_private(stack: ComposeStack) -> set[str]:
    """The router's API, the socket proxy and Caddy's admin API, by every name and address that they have."""
    gateways = {stack.gateway(network) for network in ("_api", "_public", "-trainers", "-servers")}
    return {
        "router:8000",
        "router-api:8000",
        "socket-proxy:2375",
        "caddy:2019",
        *addresses_of(stack, stack.container("router"), 8000),
        *addresses_of(stack, stack.container("socket-proxy"), 2375),
        *addresses_of(stack, stack.container("caddy"), 2019),
        *(f"{gateway}:{stack.router_port}" for gateway in gateways),
    }


def test_a_trainer_reaches_mlflow_and_the_outside_but_nothing_else(
    stack: ComposeStack, server: str, outside: str
) -> None:
    servers = {f"{server}:8080", *addresses_of(stack, server, 8080)}
    targets = {MLFLOW, outside} | servers | services_that_are_private(stack)
    assert reachable(stack, "trainer", targets) == {MLFLOW, outside}


def test_a_server_reaches_mlflow_but_no_private_service(stack: ComposeStack, server: str) -> None:
    mine = f"{server}:8080"  # so that what is refused is not refused by the test's own mistake
    assert reachable(stack, "server", {MLFLOW, mine} | services_that_are_private(stack)) == {MLFLOW, mine}


def test_the_routers_api_listens_where_no_server_is(stack: ComposeStack) -> None:
    router = stack.container("router")
    look = ("exec", router, "python", "-c", LOOK)
    addresses = stack.addresses(router)
    assert set(addresses) == {"api", "control", "servers"}
    targets = [f"{address}:8000" for address in addresses.values()]
    assert json.loads(stack.docker(*look, *targets)) == [f"{addresses['api']}:8000"]
