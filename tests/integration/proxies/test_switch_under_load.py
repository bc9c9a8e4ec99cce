"""Four kinds of clients ask all the time while traffic goes back and forth: nobody may lose a request."""

import asyncio
from pathlib import Path

from bench.load import KINDS
from router.proxies.caddy_slots import CaddySlots
from tests.services.clients import four_kinds_of_clients
from tests.services.proxied import open_proxied
from tests.services.upstream import UpstreamProcess

SWITCHES = 150
RATE = 210
PAUSE_SECONDS = 0.05  # between switches, so that several requests fall between two and many across each


async def test_a_switch_loses_no_request_of_any_kind_of_client(
    socket_directory: Path, tmp_path: Path
) -> None:
    servers = [UpstreamProcess(tmp_path).start() for _ in range(2)]
    addresses = [server.address for server in servers]
    try:
        async with open_proxied(CaddySlots, socket_directory) as stand:
            await stand.serve(addresses[0])
            with four_kinds_of_clients(stand.url, tmp_path / "load.json", RATE, "--slow-upload") as load:
                for number in range(SWITCHES):
                    await stand.serve(addresses[number % len(addresses)])
                    await asyncio.sleep(PAUSE_SECONDS)
    finally:
        for server in servers:
            server.kill()
    report = load.report
    assert report["reasons"] == {}
    assert report["failed"] == 0
    assert set(report["by_kind"]) == set(KINDS)
    assert set(report["served_by"]) == set(addresses)
    assert min(report["served_by"].values()) > SWITCHES
