"""A socket that refuses every connection ends the process; a Docker that answers anything does not."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from socket_proxy.docker import Docker
from socket_proxy.refusal import Refused
from tests.fake_clock import FakeClock

pytestmark = pytest.mark.anyio
PATIENCE = 30.0


class Watched:
    """Docker's client on a socket, and how often it would have ended the process."""

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.ends = 0
        self._docker = Docker(str(path), PATIENCE, self._end, self.clock.now)

    def _end(self) -> None:
        self.ends += 1

    async def ask(self, error: type[Exception] | tuple[type[Exception], ...]) -> None:
        with pytest.raises(error):
            await self._docker.fetch("/containers/x/json")

    async def ask_again_after(
        self, seconds: float, error: type[Exception] | tuple[type[Exception], ...]
    ) -> None:
        await self.clock.advance(seconds)
        await self.ask(error)


@asynccontextmanager
async def serve(path: Path, answer: bytes) -> AsyncIterator[None]:
    """One answer for each connection."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(tell, path):
        yield


def leave_dead(path: Path) -> None:
    """As a mounted file does when Docker has made its socket anew: one that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


FORBIDDEN = b'HTTP/1.1 403 X\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"message": "no"}'


@pytest.mark.parametrize("make", [leave_dead, lambda path: None], ids=["dead", "missing"])
async def test_a_socket_that_refuses_every_connection_for_so_long_ends_the_process(
    make: Callable[[Path], None], socket_directory: Path
) -> None:
    make(socket_directory / "docker.sock")
    watched = Watched(socket_directory / "docker.sock")
    await watched.ask(httpx.ConnectError)
    await watched.ask_again_after(PATIENCE - 1, httpx.ConnectError)
    assert watched.ends == 0
    await watched.ask_again_after(1, httpx.ConnectError)
    assert watched.ends == 1


async def test_a_time_in_which_nobody_asks_does_not_count(socket_directory: Path) -> None:
    watched = Watched(socket_directory / "docker.sock")
    await watched.ask_again_after(10 * PATIENCE, httpx.ConnectError)
    assert watched.ends == 0


async def test_one_answer_begins_the_count_anew(socket_directory: Path) -> None:
    path = socket_directory / "docker.sock"
    watched = Watched(path)
    await watched.ask(httpx.ConnectError)
    async with serve(path, FORBIDDEN):
        await watched.ask_again_after(PATIENCE - 1, Refused)
    path.unlink(missing_ok=True)
    await watched.ask_again_after(PATIENCE, httpx.ConnectError)
    assert watched.ends == 0


@pytest.mark.parametrize(
    "answer", [FORBIDDEN, b"HTTP/1.1 500 X\r\n\r\n<html>", b""], ids=["403", "500", "none"]
)
async def test_a_docker_that_refuses_calls_or_breaks_them_off_ends_nothing(
    answer: bytes, socket_directory: Path
) -> None:
    path = socket_directory / "docker.sock"
    watched = Watched(path)
    async with serve(path, answer):
        for _ in range(3):
            await watched.ask_again_after(PATIENCE, (Refused, httpx.RemoteProtocolError))
    assert watched.ends == 0
