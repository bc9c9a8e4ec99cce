"""What the demo asks whom, before services that only write down what they were asked."""

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scripts import compose_config, compose_stack
from scripts.compose_stack import ComposeStack
from scripts.demo_run import predict, train_and_roll

TOKEN = "a-secret-of-the-router"  # noqa: S105
ANSWER = {"rolled": True, "version": 1, "registered_model": "m", "active": "m-v1"}


class Listener(ThreadingHTTPServer):
    """On an address of the loopback that `localhost` is not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.2", 0), _Handler)
        self.tokens: list[str | None] = []  # one for each call


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the test has what it needs."""


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_on_docker_the_router_alone_gets_the_token_and_all_are_asked_where_they_are_published(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = listener.server_address[:2]
    service = {"ports": [{"host_ip": host, "published": str(port)}]}
    router = service | {"environment": {"SWITCHYARD_TOKEN": TOKEN}}
    config = json.dumps({"services": {"router": router, "caddy": service, "mlflow": service}})
    docker = tmp_path / "docker"
    docker.write_text(f"#!{sys.executable}\nprint({config!r})\n")
    docker.chmod(0o755)
    up = tmp_path / "scripts" / "up"
    up.parent.mkdir()
    up.write_text("#!/bin/sh\n")
    up.chmod(0o755)
    monkeypatch.setattr(compose_config, "DOCKER", str(docker))
    monkeypatch.setattr(compose_stack, "ROOT", tmp_path)

    stack = ComposeStack()
    list(stack.bring_up())
    train_and_roll(stack)
    predict(stack)

    assert listener.tokens == [f"Bearer {TOKEN}", None]
