"""A tiny model server that tests put behind the proxy: it says who it is, and can be slow, hang or die.

In the test's own event loop (`UpstreamServer`) or as a process that can be killed (`UpstreamProcess`).
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from scripts.service_commands import service_environment
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess

POISON = b"poison"


class UpstreamServer:
    """Answers every path with its own address. `/slow?seconds=S` takes that long, `/hang` until `release`,
    `/stream` sends one chunk and the next after `release`, `/status?code=C` answers with C."""

    def __init__(self, port: int = 0, deliveries: Path | None = None) -> None:
        self._port = port
        self._deliveries = deliveries  # a line for each poison request that arrived
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.address = ""
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections_made = 0
        self.hanging = asyncio.Event()
        self.release = asyncio.Event()

    async def start(self) -> "UpstreamServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        return self

    async def stop(self) -> None:
        """Closes idle connections too; what hangs is let go first."""
        self.release.set()
        if self._server is not None:
            self._server.close()
            tasks = [task for task in self._connections.values() if task]
            for writer in list(self._connections):
                writer.close()
            await asyncio.gather(*tasks)
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_made += 1
        self._connections[writer] = asyncio.current_task()
        try:
            while await self._answer_one(reader, writer):
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy hung up, as a client's disappearance makes it do
        finally:
            del self._connections[writer]
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        body = await self._read_body(reader, headers)
        self.requests.append((method, target, body))
        url = urlsplit(target)
        query = parse_qs(url.query)
        if body == POISON or "poison" in query:
            self._die()
        if url.path == "/slow":
            await asyncio.sleep(float(query["seconds"][0]))
        if url.path == "/stream":
            await self._stream(writer)
            return True
        if url.path == "/hang":
            self.hanging.set()
            await self.release.wait()
        status = int(query["code"][0]) if url.path == "/status" else 200
        text = json.dumps(
            {"server": self.address, "method": method, "path": target, "size": len(body)}
        ).encode()
        head_out = f"HTTP/1.1 {status} X\r\nX-Served-By: a lie\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head_out.encode() + (b"" if method == "HEAD" else text))
        return True

    async def _read_body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:size]
        await reader.readline()
        return body

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        self.hanging.set()
        await self.release.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    def _die(self) -> None:
        if self._deliveries is None:
            raise RuntimeError("poison is for servers in a process of their own")
        with self._deliveries.open("a") as deliveries:
            deliveries.write(f"{self.address}\n")
        os.kill(os.getpid(), signal.SIGKILL)


class UpstreamProcess:
    """The same server as a process; a new one after `kill` may take the same port."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.port = port or find_free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.deliveries = directory / "deliveries"
        command = [sys.executable, "-m", "tests.services.upstream", str(self.port), str(self.deliveries)]
        self._process = ServiceProcess(
            command, service_environment(), directory / f"upstream-{self.port}.log"
        )

    @property
    def running(self) -> bool:
        return self._process.running

    def start(self) -> "UpstreamProcess":
        self._process.start(self._listens)
        return self

    def kill(self) -> None:
        self._process.kill()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


async def serve_until_killed(port: int, deliveries: Path) -> None:
    await UpstreamServer(port, deliveries).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("deliveries", type=Path)
    given = parser.parse_args()
    asyncio.run(serve_until_killed(given.port, given.deliveries))
