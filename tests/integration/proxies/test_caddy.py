"""A real Caddy through restarts, kills of servers and requests that kill: what users see of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from router.core.traffic import Traffic
from router.proxies.caddy_config import CaddyLayout, build_config, read_switch_from, render_config
from router.proxies.caddy_slots import CaddySlots
from scripts.service_commands import ROOT
from tests.services.proxied import Proxied, make_upstream, open_proxied
from tests.services.upstream import POISON, UpstreamProcess, UpstreamServer


@pytest.fixture
async def stand(socket_directory: Path) -> AsyncIterator[Proxied]:
    async with open_proxied(CaddySlots, socket_directory) as proxied:
        yield proxied


async def test_a_killed_caddy_serves_the_right_server_at_once_when_it_is_back(stand: Proxied) -> None:
    server = await UpstreamServer().start()
    await stand.serve(server.address)
    await stand.driver.close()  # the router is gone
    stand.caddy.kill()
    stand.caddy.start()
    response = await stand.client.post("/invocations", content=b"{}")
    assert response.headers["x-served-by"] == server.address
    await server.stop()


async def test_a_switch_made_while_caddy_is_down_holds_when_it_is_back(stand: Proxied) -> None:
    server = await UpstreamServer().start()
    stand.caddy.kill()
    await stand.serve(server.address)
    await stand.driver.ensure_endpoints(["iris"])
    stand.caddy.start()
    assert (await stand.client.get("/")).headers["x-served-by"] == server.address
    assert (await stand.client.get("/endpoints/iris/ping")).status_code == 503
    await server.stop()


async def test_a_caddy_that_started_from_something_else_is_put_right(stand: Proxied) -> None:
    server = await UpstreamServer().start()
    await stand.serve(server.address)
    transport = httpx.AsyncHTTPTransport(uds=str(stand.layout.admin_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://caddy") as admin:
        empty = build_config(stand.layout, {})
        (await admin.post("/load", json=empty)).raise_for_status()
    await stand.driver.check()
    assert (await stand.client.get("/")).headers["x-served-by"] == server.address
    await server.stop()


async def test_requests_that_find_nobody_wait_for_the_next_server(stand: Proxied, tmp_path: Path) -> None:
    dead, heir = UpstreamProcess(tmp_path).start(), UpstreamProcess(tmp_path).start()
    try:
        await stand.serve(dead.address)
        inside = [asyncio.create_task(stand.client.post("/slow?seconds=30")) for _ in range(5)]
        async with asyncio.timeout(20):
            while await stand.driver.in_flight(dead.address) < len(inside):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        dead.kill()
        waiting = [
            asyncio.create_task(stand.client.request(method, "/x"))
            for method in ("GET", "POST", "PUT", "DELETE") * 10
        ]
        assert [response.status_code for response in await asyncio.gather(*inside)] == [502] * 5
        await stand.serve(heir.address)
        answers = await asyncio.gather(*waiting)
        assert {response.status_code for response in answers} == {200}
        assert {response.headers["x-served-by"] for response in answers} == {heir.address}
    finally:
        dead.kill()
        heir.kill()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "1"}])
async def test_a_request_that_kills_its_server_is_delivered_once(
    stand: Proxied, tmp_path: Path, method: str, headers: dict[str, str]
) -> None:
    victim, heir = UpstreamProcess(tmp_path).start(), UpstreamProcess(tmp_path).start()
    try:
        await stand.serve(victim.address)
        for _ in range(20):  # so that there are connections to use again
            assert (await stand.client.request(method, "/x", headers=headers)).status_code == 200
        response = await stand.client.request(method, "/?poison=1", content=POISON, headers=headers)
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "server_lost"
        await stand.serve(heir.address)
        assert (await stand.client.request(method, "/x")).status_code == 200
        assert heir.running
        assert victim.deliveries.read_text().splitlines() == [victim.address]
    finally:
        victim.kill()
        heir.kill()


async def test_metrics_are_never_public(stand: Proxied) -> None:
    server = await UpstreamServer().start()
    await stand.driver.ensure_endpoints(["iris"])
    await stand.serve(server.address)
    await stand.driver.set_traffic("iris", Traffic(active=make_upstream(server.address)))
    paths = ("/metrics", "/metrics/", "/METRICS", "//metrics", "/%6detrics", "/endpoints/iris/metrics")
    for path in (*paths, "/endpoints/default/metrics", "/endpoints/iris/../iris/metrics"):
        response = await stand.client.get(httpx.URL(f"{stand.client.base_url}{path}"))
        assert response.status_code in {301, 308, 404}, path
    assert [target for _, target, _ in server.requests if "metrics" in target.lower()] == []
    await server.stop()


async def test_adding_many_endpoints_reloads_caddy_once_and_adding_none_not_at_all(stand: Proxied) -> None:
    await stand.driver.check()
    before = stand.count_loads()
    await stand.driver.ensure_endpoints([f"model-{number}" for number in range(100)])
    assert stand.count_loads() == before + 1
    await stand.driver.ensure_endpoints([f"model-{number}" for number in range(100)])
    assert stand.count_loads() == before + 1
    assert (await stand.client.get("/endpoints/model-99/ping")).status_code == 503
    assert (await stand.client.get("/endpoints/model-100/ping")).status_code == 404


async def test_an_answer_that_comes_in_pieces_is_passed_on_in_pieces(stand: Proxied) -> None:
    server = await UpstreamServer().start()
    await stand.serve(server.address)
    async with stand.client.stream("GET", "/stream") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"first"
        server.release.set()
        assert [piece async for piece in pieces] == [b"second"]
    await server.stop()


def test_the_base_config_is_what_the_router_would_write() -> None:
    home = Path("/var/lib/switchyard")
    layout = CaddyLayout(
        admin_socket=Path("/run/switchyard/caddy-admin.sock"), access_log=home / "access.log"
    )
    expected = render_config(build_config(layout, {"default": read_switch_from(home / "slots", "default")}))
    assert (ROOT / "caddy" / "caddy.json").read_bytes() == expected
