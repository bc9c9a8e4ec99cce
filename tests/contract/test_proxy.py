"""One suite for every proxy: the memory driver, and both Caddy drivers with a real Caddy and real servers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from router.core.errors import InvalidRequest, UnknownEndpoint
from router.core.traffic import Traffic, Upstream
from router.proxies.base import Proxy, Sample
from router.proxies.caddy_admin import CaddyAdmin
from router.proxies.caddy_config import CaddyLayout
from router.proxies.caddy_slots import CaddySlots
from router.proxies.memory import MemoryProxy
from tests.services.caddy import Caddy, run_caddy
from tests.services.ports import find_free_port
from tests.services.upstream import UpstreamServer

DRIVERS = {"caddy_slots": CaddySlots, "caddy_admin": CaddyAdmin}


class Client(Protocol):
    """How a test asks for the public URL: the address that answered, None for Caddy itself."""

    async def ask(self, endpoint: str = "default", *, candidate: bool = False) -> str | None: ...


@dataclass
class MemoryClient:
    proxy: MemoryProxy

    async def ask(self, endpoint: str = "default", *, candidate: bool = False) -> str | None:
        address = self.proxy.answer(endpoint, by_header=candidate)
        return None if address == self.proxy.idle_address else address


@dataclass
class HttpClient:
    client: httpx.AsyncClient

    async def ask(self, endpoint: str = "default", *, candidate: bool = False) -> str | None:
        path = "/invocations" if endpoint == "default" else f"/endpoints/{endpoint}/invocations"
        headers = {"X-Switchyard-Slot": "candidate"} if candidate else {}
        response = await self.client.post(path, content=b"{}", headers=headers)
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
    caddy: Caddy | None = None

    async def share(self, requests: int, endpoint: str = "default") -> float:
        """Percent of so many requests that reached the second server."""
        seen = Counter([await self.client.ask(endpoint) for _ in range(requests)])
        return 100 * seen[self.second.address] / requests


def upstream(address: str, version: int) -> Upstream:
    return Upstream(
        address=address,
        server_id=f"srv_{version}",
        model_name="Iris",
        model_version=version,
        serve_image="image",
        serve_digest="sha256:0",
    )


@pytest.fixture(params=["memory", *DRIVERS])
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, socket_directory: Path
) -> AsyncIterator[Bench]:
    if request.param == "memory":
        proxy = MemoryProxy()
        await proxy.start()
        yield Bench(proxy, MemoryClient(proxy), upstream("127.0.0.1:1", 1), upstream("127.0.0.1:2", 2))
        return
    servers = (await UpstreamServer().start(), await UpstreamServer().start())
    public = find_free_port()
    layout = CaddyLayout(
        admin_socket=socket_directory / "admin.sock",
        access_log=socket_directory / "access.log",
        public_listen=f"127.0.0.1:{public}",
        idle_address=f"127.0.0.1:{find_free_port()}",
    )
    config = socket_directory / "caddy.json"
    driver = DRIVERS[request.param](layout=layout, slots=socket_directory / "slots", config_path=config)
    await driver.start()
    with run_caddy(config, layout.admin_socket, tmp_path / "caddy") as caddy:
        await driver.check()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{public}", timeout=30) as client:
            yield Bench(
                driver,
                HttpClient(client),
                upstream(servers[0].address, 1),
                upstream(servers[1].address, 2),
                servers,
                caddy,
            )
    await driver.close()
    for server in servers:
        await server.stop()


async def test_before_the_first_rollout_nobody_serves(bench: Bench) -> None:
    assert await bench.proxy.read_traffic("default") == Traffic()
    assert await bench.client.ask() is None


async def test_traffic_goes_to_the_active_server_and_is_read_back(bench: Bench) -> None:
    for active in (bench.first, bench.second, bench.first):
        await bench.proxy.set_traffic("default", Traffic(active=active))
        assert await bench.proxy.read_traffic("default") == Traffic(active=active)
        assert await bench.client.ask() == active.address


async def test_the_header_reaches_the_candidate_whatever_its_share(bench: Bench) -> None:
    traffic = Traffic(active=bench.first, candidate=bench.second, weight=0)
    await bench.proxy.set_traffic("default", traffic)
    assert await bench.client.ask(candidate=True) == bench.second.address
    assert await bench.client.ask() == bench.first.address


async def test_without_a_candidate_the_header_reaches_the_active_server(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    assert await bench.client.ask(candidate=True) == bench.first.address


@pytest.mark.parametrize(("weight", "low", "high"), [(0, 0, 0), (25, 12, 38), (100, 100, 100)])
async def test_the_candidate_gets_its_share(bench: Bench, weight: float, low: float, high: float) -> None:
    traffic = Traffic(active=bench.first, candidate=bench.second, weight=weight)
    await bench.proxy.set_traffic("default", traffic)
    # 400 requests: 6 standard errors of a quarter are 13 percent.
    assert low <= await bench.share(400) <= high


async def test_endpoints_have_traffic_of_their_own(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["default", "iris", "Wine.v2"])
    assert set(await bench.proxy.endpoints()) == {"default", "iris", "Wine.v2"}
    await bench.proxy.set_traffic("iris", Traffic(active=bench.first))
    await bench.proxy.set_traffic("Wine.v2", Traffic(active=bench.second))
    assert await bench.client.ask("iris") == bench.first.address
    assert await bench.client.ask("Wine.v2") == bench.second.address
    assert await bench.client.ask() is None


async def test_making_endpoints_again_keeps_their_traffic(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["iris"])
    await bench.proxy.set_traffic("iris", Traffic(active=bench.first))
    await bench.proxy.ensure_endpoints(["iris", "wine"])
    assert await bench.proxy.read_traffic("iris") == Traffic(active=bench.first)
    assert await bench.client.ask("iris") == bench.first.address


async def test_a_removed_endpoint_is_unknown(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["iris"])
    await bench.proxy.remove_endpoints(["iris"])
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.read_traffic("iris")
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.set_traffic("iris", Traffic(active=bench.first))
    with pytest.raises(InvalidRequest):
        await bench.proxy.remove_endpoints(["default"])


async def test_readers_see_the_old_traffic_or_the_new_one_and_nothing_else(bench: Bench) -> None:
    states = [
        Traffic(active=bench.first),
        Traffic(active=bench.second, candidate=bench.first, weight=10),
    ]
    await bench.proxy.set_traffic("default", states[0])
    done = asyncio.Event()

    async def read_all_the_time() -> int:
        reads = 0
        while not done.is_set():
            assert await bench.proxy.read_traffic("default") in states
            reads += 1
            await asyncio.sleep(0)
        return reads

    reader = asyncio.create_task(read_all_the_time())
    for number in range(40):
        await bench.proxy.set_traffic("default", states[number % 2])
        await asyncio.sleep(0)
    done.set()
    assert await reader > 0


async def test_samples_tell_who_answered_what_since_the_cursor(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    await bench.client.ask()
    nothing, cursor = await bench.proxy.samples(None)
    assert nothing == []
    await bench.proxy.set_traffic("default", Traffic(active=bench.second))
    for _ in range(3):
        await bench.client.ask()
    found: list[Sample] = []
    async with asyncio.timeout(20):
        while len(found) < 3:  # the real log is written after the answer
            samples, cursor = await bench.proxy.samples(cursor)
            found += samples
            await asyncio.sleep(0.01)
    assert [sample.address for sample in found if sample.address == bench.second.address]
    assert {(sample.endpoint, sample.status) for sample in found} == {("default", 200)}
    assert all(sample.seconds >= 0 for sample in found)


async def test_a_server_without_requests_has_none_in_flight(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    assert await bench.proxy.in_flight(bench.first.address) == 0
