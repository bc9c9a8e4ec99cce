"""A Caddy with a driver of ours in front of it, on ports and paths of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from router.core.traffic import DEFAULT_ENDPOINT, Traffic, Upstream
from router.proxies.caddy_admin import CaddyAdmin
from router.proxies.caddy_config import CaddyLayout
from router.proxies.caddy_slots import CaddySlots
from tests.services.caddy import Caddy, run_caddy
from tests.services.ports import find_free_port
from tests.services.reloads import AcrossReloads, Reloads

CaddyDriver = CaddySlots | CaddyAdmin
WATCH_SECONDS = 0.2


def make_upstream(address: str, version: int = 1) -> Upstream:
    return Upstream(
        address=address,
        server_id=f"srv_{version}",
        model_name="Iris",
        model_version=version,
        serve_image="image",
        serve_digest="sha256:0",
    )


@dataclass
class Proxied:
    """`driver` is started, `caddy` runs, `client` speaks to the public port, reloads or not."""

    driver: CaddyDriver
    caddy: Caddy
    layout: CaddyLayout
    directory: Path
    client: httpx.AsyncClient
    make_driver: Callable[[], CaddyDriver]  # another one over the same slots, not started

    @property
    def url(self) -> str:
        return f"http://{self.layout.public_listen}"

    async def serve(self, address: str, endpoint: str = DEFAULT_ENDPOINT) -> None:
        await self.driver.set_traffic(endpoint, Traffic(active=make_upstream(address)))

    def count_loads(self) -> int:
        """Configurations that Caddy was told to load since it was first started."""
        return self.caddy.log.read_text().count('"uri":"/load"')


def make_layout(directory: Path, access_log_mib: int = 64) -> CaddyLayout:
    return CaddyLayout(
        admin_socket=directory / "admin.sock",
        access_log=directory / "access.log",
        public_listen=f"127.0.0.1:{find_free_port()}",
        idle_address=f"127.0.0.1:{find_free_port()}",
        access_log_mib=access_log_mib,
    )


@asynccontextmanager
async def open_proxied(
    kind: type[CaddyDriver], directory: Path, access_log_mib: int = 64
) -> AsyncIterator[Proxied]:
    """`directory` must have a short path: a unix socket is made in it."""
    layout, config = make_layout(directory, access_log_mib), directory / "caddy.json"

    def make_driver() -> CaddyDriver:
        slots = directory / "slots"
        return kind(layout=layout, slots=slots, config_path=config, watch_seconds=WATCH_SECONDS)

    driver = make_driver()
    await driver.start()
    try:
        with run_caddy(config, layout.admin_socket, directory / "caddy") as caddy:
            await driver.check()
            url = f"http://{layout.public_listen}"
            transport = AcrossReloads(Reloads(caddy.log))
            async with httpx.AsyncClient(base_url=url, timeout=30, transport=transport) as client:
                yield Proxied(driver, caddy, layout, directory, client, make_driver)
    finally:
        await driver.close()
