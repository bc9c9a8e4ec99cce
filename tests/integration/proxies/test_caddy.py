"""A real Caddy through restarts, kills of servers and requests that kill: what users see of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from anyio import to_thread

from router.core.errors import ProxyUnavailable
from router.core.tallies import is_failure
from router.core.traffic import Traffic
from router.proxies.admin_api import AdminApi, CaddyRefused
from router.proxies.base import Sample
from router.proxies.caddy_config import build_config, render_config
from router.proxies.caddy_slots import CaddySlots
from router.proxies.config_keeper import ConfigKeeper
from tests.services.proxied import Proxied, make_upstream, open_proxied
from tests.services.upstream import POISON, UpstreamProcess, UpstreamServer


@pytest.fixture
async def stand(socket_directory: Path) -> AsyncIterator[Proxied]:
    async with open_proxied(CaddySlots, socket_directory) as proxied:
        yield proxied


@pytest.fixture
async def server() -> AsyncIterator[UpstreamServer]:
    server = await UpstreamServer().start()
    yield server
    await server.stop()


async def test_a_killed_caddy_serves_the_right_server_at_once_when_it_is_back(
    stand: Proxied, server: UpstreamServer
) -> None:
    await stand.serve(server.address)
    await stand.driver.close()  # the router is gone
    stand.caddy.kill()
    stand.caddy.start()
    response = await stand.client.post("/invocations", content=b"{}")
    assert response.headers["x-served-by"] == server.address


async def test_a_switch_made_while_caddy_is_down_holds_when_it_is_back(
    stand: Proxied, server: UpstreamServer
) -> None:
    stand.caddy.kill()
    await stand.serve(server.address)
    await stand.driver.ensure_endpoints(["iris"])
    stand.caddy.start()
    assert (await stand.client.get("/")).headers["x-served-by"] == server.address
    assert (await stand.client.get("/endpoints/iris/ping")).status_code == 503


async def test_a_caddy_that_started_from_something_else_is_put_right(
    stand: Proxied, server: UpstreamServer
) -> None:
    await stand.serve(server.address)
    transport = httpx.AsyncHTTPTransport(uds=str(stand.layout.admin_socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://caddy") as admin:
        empty = build_config(stand.layout, {})
        (await admin.post("/load", json=empty)).raise_for_status()
    await stand.driver.check()
    assert (await stand.client.get("/")).headers["x-served-by"] == server.address


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


@pytest.fixture
async def served(stand: Proxied, tmp_path: Path) -> AsyncIterator[str]:
    """A server in a process of its own has the traffic: the cursor from then on."""
    server = UpstreamProcess(tmp_path).start()
    await stand.serve(server.address)
    _, cursor = await stand.driver.samples(None)
    yield cursor
    server.kill()


BROKEN_CHUNKS = [
    b"ZZ\r\nabc\r\n0\r\n\r\n",
    b"\r\n",
    b"-5\r\nx",
    b"fffffffffffffffff\r\nx",
    b"5\r\nabcde5\r\nabcde\r\n0\r\n\r\n",
    b"5;" + b"a" * 70_000 + b"\r\nabcde\r\n0\r\n\r\n",
    b"1;a=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\nx\r\n" * 20_000,
    b"5\r\nabcde\r\n0\r\nno trailer\r\n\r\n",
]


@pytest.mark.parametrize("sent", BROKEN_CHUNKS, ids=range(len(BROKEN_CHUNKS)))
async def test_a_body_that_is_none_is_its_senders_fault_and_no_sample_of_the_server(
    stand: Proxied, served: str, sent: bytes
) -> None:
    async with posting(stand, b"Transfer-Encoding: chunked\r\n\r\n" + sent) as (reader, _):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        await reader.readuntil(b'"code": "body_broke_off"')
    samples = await samples_until_a_whole_one(stand, served)
    assert [sample.status for sample in samples] == [200]


@pytest.mark.parametrize(
    "half",
    [b"Content-Length: 100\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"],
    ids=["length", "chunks"],
)
async def test_an_upload_that_breaks_off_is_no_failure_of_the_server(
    stand: Proxied, served: str, half: bytes
) -> None:
    async with posting(stand, half) as (reader, writer):
        writer.write_eof()
        await reader.read()
    samples = await samples_until_a_whole_one(stand, served)
    assert [sample.status for sample in samples if is_failure(sample.status)] == []


@asynccontextmanager
async def posting(
    stand: Proxied, sent: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which a POST was begun, with these headers and body."""
    url = stand.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(b"POST /broken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + sent)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):  # Caddy resets what it does not read to its end
            await writer.wait_closed()


async def samples_until_a_whole_one(stand: Proxied, cursor: str) -> list[Sample]:
    """Caddy writes its log in the order of the answers, so a broken one comes first."""
    assert (await stand.client.post("/whole", content=b"{}")).status_code == 200
    found: list[Sample] = []
    async with asyncio.timeout(30):
        while not any(sample.status == 200 for sample in found):  # no event tells that it was written
            new, cursor = await stand.driver.samples(cursor)
            found += new
            await asyncio.sleep(0.01)
    return found


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


async def test_metrics_are_never_public(stand: Proxied, server: UpstreamServer) -> None:
    await stand.driver.ensure_endpoints(["iris"])
    await stand.serve(server.address)
    await stand.driver.set_traffic("iris", Traffic(active=make_upstream(server.address)))
    paths = ("/metrics", "/metrics/", "/METRICS", "//metrics", "/%6detrics", "/endpoints/iris/metrics")
    for path in (*paths, "/endpoints/default/metrics", "/endpoints/iris/../iris/metrics"):
        response = await stand.client.get(httpx.URL(f"{stand.client.base_url}{path}"))
        assert response.status_code in {301, 308, 404}, path
    assert [target for _, target, _ in server.requests if "metrics" in target.lower()] == []


async def test_adding_many_endpoints_reloads_caddy_once_and_adding_none_not_at_all(stand: Proxied) -> None:
    await stand.driver.check()
    before = stand.count_loads()
    await stand.driver.ensure_endpoints([f"model-{number}" for number in range(30)])
    assert stand.count_loads() == before + 1
    await stand.driver.ensure_endpoints([f"model-{number}" for number in range(30)])
    assert stand.count_loads() == before + 1
    assert (await stand.client.get("/endpoints/model-29/ping")).status_code == 503
    assert (await stand.client.get("/endpoints/model-30/ping")).status_code == 404


async def test_an_answer_that_comes_in_pieces_is_passed_on_in_pieces(
    stand: Proxied, server: UpstreamServer
) -> None:
    await stand.serve(server.address)
    async with stand.client.stream("GET", "/stream") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"first"
        server.release.set()
        assert [piece async for piece in pieces] == [b"second"]


async def test_a_caddy_that_comes_with_another_configuration_is_put_right_by_itself(
    stand: Proxied, server: UpstreamServer
) -> None:
    await stand.serve(server.address)
    config = stand.directory / "caddy.json"
    wanted = config.read_bytes()
    config.write_bytes(render_config(build_config(stand.layout, {})))
    await to_thread.run_sync(stand.caddy.restart)
    async with asyncio.timeout(60):
        while (await stand.client.get("/")).status_code != 200:  # noqa: ASYNC110 - users are who can tell
            await asyncio.sleep(0.05)
    await stand.driver.check()
    config.write_bytes(wanted)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "empty"])
async def test_a_damaged_file_is_whole_again_before_caddy_starts_from_it(
    stand: Proxied, damage: Callable[[Path], object], server: UpstreamServer
) -> None:
    await stand.serve(server.address)
    await to_thread.run_sync(stand.caddy.stop)
    damage(stand.directory / "caddy.json")
    with pytest.raises(ProxyUnavailable):
        await stand.driver.check()  # as its watch does every few seconds
    await to_thread.run_sync(stand.caddy.start)
    assert (await stand.client.get("/")).status_code == 200


async def test_a_router_starts_while_caddy_is_down_and_caddy_is_configured_when_it_comes(
    stand: Proxied,
) -> None:
    await stand.driver.close()
    await to_thread.run_sync(stand.caddy.stop)
    driver = stand.make_driver()
    await driver.start()
    await driver.ensure_endpoints(["iris"])
    await to_thread.run_sync(stand.caddy.start)
    await driver.check()
    assert (await stand.client.get("/endpoints/iris/ping")).status_code == 503
    await driver.close()


async def test_a_router_that_stands_by_asks_caddy_and_changes_nothing(stand: Proxied) -> None:
    await stand.driver.ensure_endpoints(["iris"])
    loads = stand.count_loads()
    standby = stand.make_driver()
    await standby.check()
    assert await standby.read_traffic("iris") == Traffic()
    await standby.close()
    assert stand.count_loads() == loads
    assert (await stand.client.get("/endpoints/iris/ping")).status_code == 503


async def test_a_configuration_that_caddy_refuses_leaves_the_old_one_in_caddy_and_in_its_file(
    stand: Proxied,
) -> None:
    config = stand.directory / "caddy.json"
    before = config.read_bytes()
    keeper = ConfigKeeper(AdminApi(stand.layout.admin_socket), config, watch_seconds=60)
    await keeper.start(json.loads(before))
    with pytest.raises(CaddyRefused, match="goes on as before"):
        await keeper.install(json.loads(before) | {"apps": {"no such app": {}}})
    assert config.read_bytes() == before
    await keeper.check()
    await keeper.close()
    await stand.driver.check()


async def test_a_log_that_caddy_rotates_gives_every_sample_once(
    socket_directory: Path, server: UpstreamServer
) -> None:
    async with open_proxied(CaddySlots, socket_directory, access_log_mib=1) as stand:
        await stand.serve(server.address)
        _, cursor = await stand.driver.samples(None)
        long = "x" * 40_000
        for number in range(60):
            await stand.client.get(f"/status?code={200 + number}")
            await stand.client.get(f"/{long}")
        assert list(stand.directory.glob("access-*.log"))
        statuses: list[int] = []
        async with asyncio.timeout(60):
            while len(statuses) < 120:
                samples, cursor = await stand.driver.samples(cursor)
                statuses += [sample.status for sample in samples]
                await asyncio.sleep(0.01)
        assert statuses[::2] == [200 + number for number in range(60)]
        assert set(statuses[1::2]) == {200}


async def test_the_log_keeps_no_query_and_no_header(stand: Proxied, server: UpstreamServer) -> None:
    await stand.serve(server.address)
    _, cursor = await stand.driver.samples(None)
    secret = {"Authorization": "Bearer s3cret", "Cookie": "a=s3cret", "X-Api-Key": "s3cret"}
    await stand.client.post("/invocations?token=s3cret", content=b"s3cret", headers=secret)
    async with asyncio.timeout(60):
        while not (await stand.driver.samples(cursor))[0]:  # noqa: ASYNC110 - Caddy writes it when it will
            await asyncio.sleep(0.01)
    assert "s3cret" not in stand.layout.access_log.read_text()


async def test_names_differ_by_case_too(stand: Proxied, server: UpstreamServer) -> None:
    second = await UpstreamServer().start()
    await stand.driver.ensure_endpoints(["iris", "Iris"])
    await stand.serve(server.address, "iris")
    await stand.serve(second.address, "Iris")
    for path, asked in (("/endpoints/iris/x", server), ("/endpoints/Iris/x", second)):
        assert (await stand.client.get(path)).headers["x-served-by"] == asked.address
    assert (await stand.client.get("/endpoints/IRIS/x")).status_code == 404
    await second.stop()
