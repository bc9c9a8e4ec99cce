"""Pulls before an engine that lets one wait."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from router.core.errors import ImageNotFound
from router.runtimes.docker_client import DockerClient
from router.runtimes.docker_images import Images

PATIENCE = 20  # of the engine, with who does not give up


class SilentEngine(ThreadingHTTPServer):
    """Has no image, and says nothing of a pull for as long as the client waits."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"tcp://127.0.0.1:{self.server_port}"
        self.given_up = Event()
        self.waited_in_vain = False


class _Handler(BaseHTTPRequestHandler):
    server: SilentEngine

    def do_GET(self) -> None:
        if self.path == "/version":
            self._answer(200, {"ApiVersion": "1.47", "MinAPIVersion": "1.24"})
        else:
            self._answer(404, {"message": "no such image"})

    def do_POST(self) -> None:
        if not self.server.given_up.wait(PATIENCE):
            self.server.waited_in_vain = True
        self._answer(200, {"error": "it was pulled for nobody"})

    def _answer(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


@pytest.fixture
def engine() -> Iterator[SilentEngine]:
    with SilentEngine() as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.given_up.set()
        made.shutdown()
        thread.join()


async def test_the_deadline_of_a_pull_holds_before_its_first_byte_too(engine: SilentEngine) -> None:
    client = DockerClient(engine.address)
    with pytest.raises(ImageNotFound, match=r"was not pulled within 0\.2 s"):
        await Images(client, pull_seconds=0.2).resolve("far/away:1")
    assert not engine.waited_in_vain
    client.close()


async def test_a_look_up_that_may_not_pull_does_not(engine: SilentEngine) -> None:
    client = DockerClient(engine.address)
    with pytest.raises(ImageNotFound, match=r"^the image far/away:1 is not on this host$"):
        await Images(client, pull_seconds=0.2).find("far/away:1")
    client.close()
