"""What every proxy is tried on: two servers to point it at, and a client that asks for the public URL."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx
from anyio import to_thread

from router.core.errors import ProxyUnavailable, UnknownEndpoint
from router.core.traffic import Upstream
from router.proxies.base import Proxy
from router.proxies.memory import MemoryProxy
from tests.services.proxied import Proxied
from tests.services.upstream import UpstreamServer


class Client(Protocol):
    """How a test asks for the public URL: the address that answered, None for Caddy itself."""

    async def ask(
        self, endpoint: str = "default", *, candidate: bool = False, cookies: dict[str, str] | None = None
    ) -> str | None:
        """`cookies` is the client's jar; without one, it keeps none."""


@dataclass
class MemoryClient:
    proxy: MemoryProxy

    async def ask(
        self, endpoint: str = "default", *, candidate: bool = False, cookies: dict[str, str] | None = None
    ) -> str | None:
        address = self.proxy.answer(endpoint, by_header=candidate, cookies=cookies)
        return None if address == self.proxy.idle_address else address


@dataclass
class HttpClient:
    client: httpx.AsyncClient

    async def ask(
        self, endpoint: str = "default", *, candidate: bool = False, cookies: dict[str, str] | None = None
    ) -> str | None:
        path = "/invocations" if endpoint == "default" else f"/endpoints/{endpoint}/invocations"
        headers = {"X-Switchyard-Slot": "candidate"} if candidate else {}
        if cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
        response = await self.client.post(path, content=b"{}", headers=headers)
        if cookies is not None:
            cookies |= dict(response.cookies)
        self.client.cookies.clear()
        if response.status_code == 404:
            raise UnknownEndpoint(response.json()["detail"])
        if response.status_code == 503:
            assert "no model is serving yet" in response.text
            return None
        assert response.status_code == 200, response.text
        assert response.headers["x-served-by"] == response.json()["server"]
        assert response.json()["path"] == "/invocations"
        return str(response.json()["server"])


@dataclass
class Bench:
    """A started proxy, a client of it, and two servers to point it at."""

    proxy: Proxy
    client: Client
    first: Upstream
    second: Upstream
    servers: tuple[UpstreamServer, ...] = ()
    proxied: Proxied | None = None

    async def share(self, requests: int, endpoint: str = "default") -> float:
        """Percent of so many requests that reached the second server."""
        seen = Counter([await self.client.ask(endpoint) for _ in range(requests)])
        return 100 * seen[self.second.address] / requests

    @asynccontextmanager
    async def request_inside_the_first(self) -> AsyncIterator[None]:
        if isinstance(self.proxy, MemoryProxy):
            self.proxy.busy[self.first.address] += 1
            yield
            self.proxy.busy[self.first.address] -= 1
            return
        assert self.proxied is not None
        request = asyncio.create_task(self.proxied.client.post("/hang"))
        await self.servers[0].hanging.wait()
        yield
        self.servers[0].release.set()
        await request

    @asynccontextmanager
    async def proxy_down(self) -> AsyncIterator[None]:
        """Killed, and back at the end."""
        if isinstance(self.proxy, MemoryProxy):
            self.proxy.fail_with = ProxyUnavailable()
            yield
            self.proxy.fail_with = None
            return
        assert self.proxied is not None
        self.proxied.caddy.kill()
        yield
        await to_thread.run_sync(self.proxied.caddy.start)

    async def start_another_router(self) -> Proxy:
        """The first one is gone; the next one has what is on the disk."""
        if self.proxied is None:
            return self.proxy
        await self.proxied.driver.close()
        self.proxied.driver = self.proxied.make_driver()
        await self.proxied.driver.start()
        return self.proxied.driver
