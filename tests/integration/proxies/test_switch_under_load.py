"""Four kinds of clients ask all the time while traffic goes back and forth: nobody may lose a request."""

import asyncio
import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

from bench.load import KINDS
from router.proxies.caddy_slots import CaddySlots
from scripts.service_commands import ROOT
from tests.services.proxied import Proxied, open_proxied
from tests.services.upstream import UpstreamProcess

REQUESTS = 2400
RATE = 210
PAUSE_SECONDS = 0.05  # between switches, so that several requests fall between two and many across each


async def switch_until(clients: asyncio.subprocess.Process, stand: Proxied, addresses: list[str]) -> int:
    """How often, until the clients have ended."""
    for switches in count():
        if clients.returncode is not None:
            break
        await stand.serve(addresses[switches % len(addresses)])
        await asyncio.sleep(PAUSE_SECONDS)
    return switches


async def test_a_switch_loses_no_request_of_any_kind_of_client(
    socket_directory: Path, tmp_path: Path
) -> None:
    servers = [UpstreamProcess(tmp_path).start() for _ in range(2)]
    addresses = [server.address for server in servers]
    try:
        async with open_proxied(CaddySlots, socket_directory) as stand:
            await stand.serve(addresses[0])
            options = [f"--rate={RATE}", f"--requests={REQUESTS}", "--slow-upload"]
            clients = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.load", stand.url, *options),
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            switching = asyncio.create_task(switch_until(clients, stand, addresses))
            output, _ = await clients.communicate()
            switches = await switching
    finally:
        for server in servers:
            server.kill()
    report: dict[str, Any] = json.loads(output)
    assert report["reasons"] == {}
    assert report["failed"] == 0
    assert report["requests"] >= REQUESTS
    assert set(report["by_kind"]) == set(KINDS)
    assert switches >= 100
    assert set(report["served_by"]) == set(addresses)
    assert min(report["served_by"].values()) > REQUESTS / 10
