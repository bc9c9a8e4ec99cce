"""Pulls before an engine that lets one wait."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from router.core.errors import ImageNotFound, RuntimeUnavailable
from router.runtimes.docker_client import DockerClient
from router.runtimes.docker_images import Images
from tests.services.tcp import listen

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


@dataclass
class ScriptedEngine:
    """Answers with what a test has written, by the beginning of a path; and counts what it was asked."""

    answers: dict[str, bytes]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            found = next(answer for begin, answer in self.answers.items() if begin in path)
            writer.write(found)
            await writer.drain()
            if b"chunked" in found:
                return  # in the middle of its answer


def answer_with(status: str, body: object) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


VERSION = answer_with("200 OK", {"ApiVersion": "1.43", "MinAPIVersion": "1.24"})


async def test_a_pull_that_is_cut_off_is_to_be_tried_again() -> None:
    cut = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{"status":"pulls"}\n\r\n'
    missing = answer_with("404 Not Found", {"message": "no such image"})
    engine = ScriptedEngine({"/version": VERSION, "/images/create": cut, "/images/": missing})
    async with listen(engine) as port:
        client = DockerClient(f"tcp://127.0.0.1:{port}")
        with pytest.raises(RuntimeUnavailable) as caught:
            await Images(client, pull_seconds=30).resolve("far/away:1")
        client.close()
    assert caught.value.retryable


async def test_the_version_of_the_api_is_agreed_on_again_with_another_engine() -> None:
    old = answer_with("400 Bad Request", {"message": "client version 1.43 is too old. Minimum is 1.44"})
    engine = ScriptedEngine({"/version": VERSION, "/v1.43/": old, "/v1.47/": answer_with("200 OK", [])})
    async with listen(engine) as port:
        client = DockerClient(f"tcp://127.0.0.1:{port}")
        with pytest.raises(RuntimeUnavailable, match="too old"):
            await client.call("GET", "/containers/json")
        engine.answers["/version"] = answer_with("200 OK", {"ApiVersion": "1.47", "MinAPIVersion": "1.44"})
        assert await client.call("GET", "/containers/json") == []
        client.close()


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
