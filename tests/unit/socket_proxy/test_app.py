"""Whole requests, before a Docker that answers what a test tells it to."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from socket_proxy.app import SocketProxy
from socket_proxy.settings import Settings
from tests.services.caddy import short_directory

Answer = tuple[int, str]
Ask = Callable[..., Awaitable[httpx.Response]]

NOTHING: Answer = (404, '{"message": "no such thing"}')


class FakeDocker:
    """On a socket of its own; one connection for each request."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}  # by method and path
        self.requests: list[str] = []

    async def ask(self, method: str, target: str, **more: Any) -> httpx.Response:
        """One request to a socket proxy in front."""
        with short_directory() as folder:
            path = folder / "docker.sock"
            server = await asyncio.start_unix_server(self._answer, path)
            async with (
                server,
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(SocketProxy(make_settings(path))),  # type: ignore[arg-type]
                    base_url="http://proxy",
                ) as client,
            ):
                return await client.request(method, target, **more)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.decode().partition(" HTTP/1.1")[0]
        self.requests.append(line)
        status, body = self.answers.get(line.partition("?")[0], NOTHING)
        text = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        writer.write(text.encode())
        await writer.drain()
        writer.close()


def make_settings(socket: Path) -> Settings:
    return Settings(docker_socket=str(socket), images=("ours/*",), pulls=("ours/pulled",))


@pytest.fixture
def docker() -> FakeDocker:
    return FakeDocker()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("call", "settings"),
    [
        ("GET /images/theirs:1/json", ("SOCKET_PROXY_IMAGES", "ALLOWED_IMAGES")),
        ("POST /images/create?fromImage=ours/built&tag=1", ("SOCKET_PROXY_PULLS", "ALLOWED_PULLS")),
    ],
)
async def test_a_refused_image_names_the_setting_that_would_allow_it(
    call: str, settings: tuple[str, str], docker: FakeDocker
) -> None:
    answer = await docker.ask(*call.split())
    assert answer.status_code == 403
    assert all(name in answer.json()["message"] for name in settings)
    assert docker.requests == []


@pytest.mark.anyio
async def test_a_registrys_login_that_no_header_can_hold_is_refused(docker: FakeDocker) -> None:
    login = {"X-Registry-Auth": "\u00fc".encode("latin-1")}
    answer = await docker.ask("POST", "/images/create?fromImage=ours/pulled&tag=1", headers=login)
    assert answer.status_code == 400
    assert docker.requests == []


@pytest.mark.anyio
async def test_an_answer_of_dockers_that_is_no_json_is_told_as_such(docker: FakeDocker) -> None:
    docker.answers["GET /containers/x/json"] = (500, "<html>")
    answer = await docker.ask("GET", "/containers/x/json")
    assert (answer.status_code, answer.json()) == (502, {"message": "Docker's answer is not JSON"})


@pytest.mark.anyio
async def test_a_call_that_the_proxys_end_cuts_off_is_to_be_sent_again() -> None:
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    with short_directory() as folder:
        path = folder / "docker.sock"
        proxy = SocketProxy(make_settings(path))
        transport = httpx.ASGITransport(proxy)  # type: ignore[arg-type]
        async with (
            await asyncio.start_unix_server(never_answer, path),
            httpx.AsyncClient(transport=transport, base_url="http://proxy") as client,
        ):
            call = asyncio.create_task(client.get("/version"))
            await asked.wait()
            proxy.end_streams()
            assert (await call).status_code == 503
