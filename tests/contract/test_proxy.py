"""One suite for every proxy: the memory driver, and both Caddy drivers with a real Caddy and real servers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.core.errors import InvalidRequest, ProxyUnavailable, UnknownEndpoint
from router.core.traffic import Traffic
from router.proxies.base import Proxy, Sample
from router.proxies.caddy_admin import CaddyAdmin
from router.proxies.caddy_slots import CaddySlots
from router.proxies.memory import MemoryProxy
from tests.contract.proxy_bench import Bench, HttpClient, MemoryClient
from tests.services.proxied import CaddyDriver, make_upstream, open_proxied
from tests.services.upstream import UpstreamServer

DRIVERS: dict[str, type[CaddyDriver]] = {"caddy_slots": CaddySlots, "caddy_admin": CaddyAdmin}


@pytest.fixture(params=["memory", *DRIVERS])
async def bench(request: pytest.FixtureRequest, socket_directory: Path) -> AsyncIterator[Bench]:
    if request.param == "memory":
        proxy = MemoryProxy()
        await proxy.start()
        first, second = make_upstream("127.0.0.1:1", 1), make_upstream("127.0.0.1:2", 2)
        yield Bench(proxy, MemoryClient(proxy), first, second)
        return
    servers = (await UpstreamServer().start(), await UpstreamServer().start())
    first, second = make_upstream(servers[0].address, 1), make_upstream(servers[1].address, 2)
    async with open_proxied(DRIVERS[request.param], socket_directory) as proxied:
        bench = Bench(proxied.driver, HttpClient(proxied.client), first, second, servers, proxied)
        yield bench
        if proxied.driver is not bench.proxy:
            await proxied.driver.close()
    for server in servers:
        await server.stop()


async def collect_samples(proxy: Proxy, cursor: str, count: int) -> tuple[list[Sample], str]:
    """Caddy writes its log after the answer."""
    found: list[Sample] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            samples, cursor = await proxy.samples(cursor)
            found += samples
            await asyncio.sleep(0.01)
    return found, cursor


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


@pytest.mark.parametrize("sticky", [False, True])
async def test_the_share_of_clients_without_cookies_is_as_asked(bench: Bench, sticky: bool) -> None:
    """Within 4 standard errors of 10,000 requests."""
    shared = Traffic(active=bench.first, candidate=bench.second, weight=10, sticky=sticky)
    await bench.proxy.set_traffic("default", shared)
    assert 10 - 4 * 0.3 <= await bench.share(10_000) <= 10 + 4 * 0.3


async def test_a_client_of_a_sticky_split_stays_with_the_side_that_it_met_first(bench: Bench) -> None:
    shared = Traffic(active=bench.first, candidate=bench.second, weight=50, sticky=True)
    await bench.proxy.set_traffic("default", shared)
    sides = Counter[frozenset[str | None]]()
    jars: list[dict[str, str]] = [{} for _ in range(40)]
    for jar in jars:
        sides[frozenset([await bench.client.ask(cookies=jar) for _ in range(5)])] += 1
    assert set(sides) == {frozenset([bench.first.address]), frozenset([bench.second.address])}
    await bench.proxy.set_traffic("default", shared.model_copy(update={"weight": 100}))
    assert {await bench.client.ask(cookies=jar) for jar in jars} == {bench.second.address}


async def test_a_split_that_is_not_sticky_gives_no_cookie(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first, candidate=bench.second, weight=50))
    jar: dict[str, str] = {}
    assert len({await bench.client.ask(cookies=jar) for _ in range(60)}) == 2
    assert jar == {}


async def test_a_cookie_that_is_no_number_of_ours_is_given_anew(bench: Bench) -> None:
    if isinstance(bench.proxy, MemoryProxy):
        return
    shared = Traffic(active=bench.first, candidate=bench.second, weight=1, sticky=True)
    await bench.proxy.set_traffic("default", shared)
    jar = {"switchyard-default": "0"}
    await bench.client.ask(cookies=jar)
    assert len(jar["switchyard-default"]) == 36


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


async def test_an_address_that_was_named_lately_is_still_taken(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    await bench.proxy.set_traffic("default", Traffic(active=bench.second))
    assert await bench.proxy.named_addresses() >= {bench.first.address, bench.second.address}


async def test_traffic_that_nobody_has_touched_needs_no_mending(bench: Bench) -> None:
    traffic = Traffic(active=bench.first, candidate=bench.second, weight=25)
    await bench.proxy.set_traffic("default", traffic)
    assert not await bench.proxy.mend_traffic("default")
    assert await bench.proxy.read_traffic("default") == traffic
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.mend_traffic("iris")


async def test_a_removed_endpoint_is_unknown(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["iris"])
    await bench.proxy.remove_endpoints(["iris"])
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.read_traffic("iris")
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.set_traffic("iris", Traffic(active=bench.first))
    with pytest.raises(InvalidRequest):
        await bench.proxy.remove_endpoints(["default"])


async def test_several_endpoints_are_removed_at_once(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["iris", "fraud", "churn"])
    await bench.proxy.remove_endpoints(["churn", "iris", "never-there"])
    assert await bench.proxy.endpoints() == ["default", "fraud"]


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


async def test_samples_tell_who_answered_what_and_each_only_once(bench: Bench) -> None:
    await bench.proxy.ensure_endpoints(["iris"])
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    await bench.proxy.set_traffic("iris", Traffic(active=bench.second))
    _, cursor = await bench.proxy.samples(None)
    await bench.client.ask()
    found, cursor = await collect_samples(bench.proxy, cursor, 1)
    for _ in range(3):
        await bench.client.ask("iris")
    found_later, cursor = await collect_samples(bench.proxy, cursor, 3)
    assert [(sample.endpoint, sample.address) for sample in (*found, *found_later)] == [
        ("default", bench.first.address),
        *[("iris", bench.second.address)] * 3,
    ]
    assert {sample.status for sample in found_later} == {200}
    assert all(0 <= sample.seconds < 30 for sample in found_later)
    assert [sample.at for sample in found_later] == sorted(sample.at for sample in found_later)
    assert await bench.proxy.samples(cursor) == ([], cursor)


async def test_who_tries_the_candidate_by_header_is_no_sample_of_it(bench: Bench) -> None:
    shared = Traffic(active=bench.first, candidate=bench.second, weight=0)
    await bench.proxy.set_traffic("default", shared)
    _, cursor = await bench.proxy.samples(None)
    assert await bench.client.ask(candidate=True) == bench.second.address
    assert await bench.client.ask() == bench.first.address
    found, _ = await collect_samples(bench.proxy, cursor, 1)
    assert [sample.address for sample in found] == [bench.first.address]


async def test_samples_begin_with_the_first_cursor(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    _, cursor = await bench.proxy.samples(None)
    await bench.client.ask()
    await collect_samples(bench.proxy, cursor, 1)
    nothing, cursor = await bench.proxy.samples(None)
    assert nothing == []
    await bench.proxy.set_traffic("default", Traffic(active=bench.second))
    await bench.client.ask()
    found, _ = await collect_samples(bench.proxy, cursor, 1)
    assert [sample.address for sample in found] == [bench.second.address]


async def test_a_request_counts_where_it_is_until_it_is_answered_also_after_a_switch(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    assert await bench.proxy.in_flight(bench.first.address) == 0
    async with bench.request_inside_the_first():
        assert await bench.proxy.in_flight(bench.first.address) == 1
        await bench.proxy.set_traffic("default", Traffic(active=bench.second))
        assert await bench.proxy.in_flight(bench.first.address) == 1
        assert await bench.proxy.in_flight(bench.second.address) == 0
    async with asyncio.timeout(30):
        while await bench.proxy.in_flight(bench.first.address):  # noqa: ASYNC110 - Caddy has no event for it
            await asyncio.sleep(0.01)


async def test_an_endpoint_that_was_not_made_is_unknown_to_everybody(bench: Bench) -> None:
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.read_traffic("iris")
    with pytest.raises(UnknownEndpoint):
        await bench.proxy.set_traffic("iris", Traffic(active=bench.first))
    with pytest.raises(UnknownEndpoint):
        await bench.client.ask("iris")


@pytest.mark.parametrize("name", ["../default", "a/b", "", "..", ".hidden", "a\nb", "a\0b", "%2e", "x" * 64])
async def test_a_name_that_could_lead_elsewhere_is_refused(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await bench.proxy.ensure_endpoints(["fine", name])
    with pytest.raises(InvalidRequest):
        await bench.proxy.set_traffic(name, Traffic())
    assert await bench.proxy.endpoints() == ["default"]


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1", "127.0.0.1:1\n", "{env.HOME}:1", "a b:80"])
async def test_an_address_that_caddy_cannot_dial_is_refused(bench: Bench, address: str) -> None:
    traffic = Traffic(active=bench.first)
    await bench.proxy.set_traffic("default", traffic)
    with pytest.raises(InvalidRequest):
        await bench.proxy.set_traffic("default", Traffic(active=make_upstream(address)))
    with pytest.raises(InvalidRequest):
        await bench.proxy.set_traffic(
            "default", Traffic(active=bench.second, candidate=make_upstream(address), weight=50)
        )
    assert await bench.proxy.read_traffic("default") == traffic
    assert await bench.client.ask() == bench.first.address


async def test_a_proxy_that_is_down_is_named_and_serves_the_same_when_it_is_back(bench: Bench) -> None:
    await bench.proxy.set_traffic("default", Traffic(active=bench.first))
    async with bench.proxy_down():
        with pytest.raises(ProxyUnavailable):
            await bench.proxy.check()
        with pytest.raises(ProxyUnavailable):
            await bench.proxy.in_flight(bench.first.address)
    await bench.proxy.check()
    assert await bench.client.ask() == bench.first.address


async def test_a_switch_while_the_proxy_is_down_holds_or_is_refused_and_changes_nothing(bench: Bench) -> None:
    before, after = Traffic(active=bench.first), Traffic(active=bench.second)
    await bench.proxy.set_traffic("default", before)
    expected = after
    async with bench.proxy_down():
        try:
            await bench.proxy.set_traffic("default", after)
        except ProxyUnavailable:
            expected = before
    assert await bench.proxy.read_traffic("default") == expected
    await bench.proxy.check()
    assert expected.active is not None
    assert await bench.client.ask() == expected.active.address


async def test_the_next_router_finds_what_users_get(bench: Bench) -> None:
    traffic = Traffic(active=bench.first, candidate=bench.second, weight=12.5)
    await bench.proxy.ensure_endpoints(["iris"])
    await bench.proxy.set_traffic("iris", traffic)
    proxy = await bench.start_another_router()
    assert await proxy.endpoints() == ["default", "iris"]
    assert await proxy.read_traffic("iris") == traffic
    assert await bench.client.ask("iris", candidate=True) == bench.second.address
