"""What the stack's trainers and servers can reach, tried where they are: in the networks of real ones.

Somewhere on the way out a proxy may answer for any address. So what counts as reached is what gives the very
answer that it gives at home.
"""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from scripts.demo_run import TRAINER
from tests.e2e.compose_stack import ComposeStack
from tests.e2e.hostile_model import ask_intruder, serve_hostile_model

pytestmark = pytest.mark.xdist_group("compose")

# Prints what each of the given `host:port` answers to `GET /`. What is dropped takes the whole timeout.
ASK = """
import concurrent.futures, json, socket, sys
def ask(target):
    host, _, port = target.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"GET / HTTP/1.0\\r\\nHost: {target}\\r\\n\\r\\n".encode())
            return connection.makefile("rb").read().partition(b"\\r\\n\\r\\n")[2].decode()
    except OSError:
        return ""
targets = sys.argv[1:]
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(dict(zip(targets, pool.map(ask, targets)))))
"""
MLFLOW = "mlflow:5000"
LISTENING = 8765  # inside a trainer

Answers = dict[str, str]  # by `host:port`; empty where nobody answers


def run_beside(stack: ComposeStack, container: str, *command: str, detach: bool = False) -> str:
    """A command in the container's own network, since a trainer or server runs nothing but its image's."""
    how = ("--detach",) if detach else ()
    quick = "--env=RES_OPTIONS=timeout:1 attempts:1"  # where names of other networks are asked for
    options = ("--rm", "--cap-drop=ALL", f"--network=container:{container}", "--entrypoint=python")
    return stack.docker("run", *how, quick, *options, f"{stack.project}/trainer-{TRAINER}", *command)


def ask_from(stack: ComposeStack, container: str, *targets: str) -> Answers:
    answers: Answers = json.loads(run_beside(stack, container, "-c", ASK, *targets))
    return answers


def reached_from(stack: ComposeStack, container: str, at_home: Answers) -> set[str]:
    answers = ask_from(stack, container, *at_home)
    return {target for target, answer in answers.items() if answer and answer == at_home[target]}


def ports_of(stack: ComposeStack, container: str, port: int, *names: str) -> Answers:
    """By its names and by its addresses, with what it answers by one of them."""
    targets = [f"{each}:{port}" for each in (*names, *stack.addresses(container).values())]
    answer = next(filter(None, ask_from(stack, container, *targets).values()), "")
    return dict.fromkeys(targets, answer)


@pytest.fixture(scope="module")
def trainer(stack: ComposeStack, server: str) -> Iterator[str]:
    """A trainer at work, held there, with somebody listening in it."""
    answer = stack.call("POST", f"/admin/train/{TRAINER}", {"wait_seconds": 0})
    training = answer.headers["location"]
    role = ("--filter", "label=switchyard.role=trainer")
    stack.wait_for(lambda: bool(stack.workloads(*role)), "a trainer")
    (container,) = stack.workloads(*role)
    stack.docker("pause", container)
    listener = run_beside(stack, container, "-m", "http.server", str(LISTENING), detach=True)
    mine = f"localhost:{LISTENING}"
    stack.wait_for(lambda: ask_from(stack, container, mine)[mine] != "", "a listener in the trainer")
    yield container
    stack.docker("rm", "--force", listener)
    stack.docker("unpause", container)
    stack.wait_for(lambda: stack.call("GET", training).json()["phase"] == "succeeded", "the training's end")


@pytest.fixture(scope="module")
def host(stack: ComposeStack) -> Iterator[Answers]:
    """A listener of the host's own, by the addresses that it could have in the stack's networks."""
    with ThreadingHTTPServer(("0.0.0.0", 0), Greeter) as listener:  # noqa: S104
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        yield {f"{gateway}:{listener.server_port}": Greeter.TEXT for gateway in stack.gateways()}
        listener.shutdown()
        thread.join()


class Greeter(BaseHTTPRequestHandler):
    TEXT = "the host"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.TEXT.encode())


@pytest.fixture(scope="module")
def private(stack: ComposeStack, server: str) -> Answers:
    """The router's API, published or not, the socket proxy, and Caddy."""
    router, proxy, caddy = (stack.container(name) for name in ("router", "socket-proxy", "caddy"))
    api = ports_of(stack, router, 8000, "router", "router-api")
    published = {f"{gateway}:{stack.router_port}" for gateway in stack.gateways()}
    found = [
        api,
        dict.fromkeys(published, api["router-api:8000"]),
        ports_of(stack, proxy, 2375, "socket-proxy"),
        ports_of(stack, caddy, stack.public_port, "caddy", "caddy-public"),
    ]
    assert all(all(each.values()) for each in found)
    assert not any(ports_of(stack, caddy, 2019, "caddy").values())  # the admin API has no port
    return {target: answer for each in found for target, answer in each.items()}


@pytest.fixture(scope="module")
def mlflow(stack: ComposeStack) -> Answers:
    return ask_from(stack, stack.container("mlflow"), MLFLOW)


def test_a_trainer_reaches_mlflow_and_the_outside_but_nothing_else(
    stack: ComposeStack, trainer: str, server: str, host: Answers, private: Answers, mlflow: Answers
) -> None:
    servers = ports_of(stack, server, 8080, server)
    reached = reached_from(stack, trainer, mlflow | host | servers | private)
    assert reached - set(host) == {MLFLOW}
    assert reached & set(host)
    assert all(servers.values())


def test_a_server_reaches_mlflow_but_nothing_else(
    stack: ComposeStack, server: str, trainer: str, host: Answers, private: Answers, mlflow: Answers
) -> None:
    trainers = ports_of(stack, trainer, LISTENING)
    assert reached_from(stack, server, mlflow | host | trainers | private) == {MLFLOW}
    assert all(trainers.values())


def test_neither_is_in_another_network_or_has_another_volume_than_its_models_cache(
    stack: ComposeStack, server: str, trainer: str
) -> None:
    """So Caddy's admin socket, which lies on a volume, is out of their reach."""
    cache = (f"{stack.project}-cache-", "/var/cache/switchyard")
    for container, network, volumes in ((server, "servers", [cache]), (trainer, "trainers", [])):
        assert set(stack.addresses(container)) == {network}
        found: list[Any] = json.loads(stack.docker("inspect", "--format", "{{json .Mounts}}", container))
        assert [(mount["Name"][:-16], mount["Destination"]) for mount in found] == volumes


def test_a_hostile_pickle_is_nobody_in_its_server_finds_no_secret_and_reaches_mlflow_alone(
    stack: ComposeStack, trainer: str, host: Answers, private: Answers, mlflow: Answers
) -> None:
    at_home = mlflow | host | private | ports_of(stack, trainer, LISTENING)
    with serve_hostile_model(stack):
        found = ask_intruder(stack, ASK, *at_home)
    answers: Answers = found["answers"]
    assert {target for target, answer in at_home.items() if answer == answers[target] != ""} == {MLFLOW}
    assert "0" not in found["status"]["Uid"].split() + found["status"]["Gid"].split()
    assert {found["status"][name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["status"]["NoNewPrivs"] == "1"
    ours = ("SWITCHYARD_", "DOCKER_", "SOCKET_PROXY_", "STORE_", "MLFLOW_TRACKING_")
    assert {name for name in found["environment"] if name.startswith(ours)} == {"MLFLOW_TRACKING_URI"}
    assert "docker.sock" not in found["mounts"]


def test_the_routers_api_and_caddy_listen_where_no_server_is(stack: ComposeStack) -> None:
    for service, port, place in (("router", 8000, "api"), ("caddy", stack.public_port, "public")):
        addresses = stack.addresses(stack.container(service))
        assert "servers" in addresses
        answers = ask_from(
            stack, stack.container(service), *(f"{each}:{port}" for each in addresses.values())
        )
        assert [target for target, answer in answers.items() if answer] == [f"{addresses[place]}:{port}"]
