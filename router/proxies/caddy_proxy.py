"""What the two Caddy drivers have in common: slot directories, the configuration, the log, the counts.

They differ in what a route looks at (`Switch`) and in how a change of traffic reaches Caddy.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from anyio import CapacityLimiter, to_thread

from router.core.errors import InvalidRequest
from router.core.traffic import DEFAULT_ENDPOINT, Traffic
from router.proxies.access_log import AccessLog
from router.proxies.admin_api import AdminApi, CaddyRefused
from router.proxies.base import Sample
from router.proxies.caddy_config import CaddyLayout, Json, Switch, build_config, require_plain_path
from router.proxies.config_keeper import ConfigKeeper
from router.proxies.slot_directory import SlotDirectories


class CaddyProxy(ABC):
    """Start it only while holding the SlotLock of `slots`."""

    def __init__(
        self, *, layout: CaddyLayout, slots: Path, config_path: Path, watch_seconds: float = 2
    ) -> None:
        require_plain_path(slots)
        self._layout = layout
        self._slots = SlotDirectories(slots, layout.idle_address)
        self._api = AdminApi(layout.admin_socket)
        self._keeper = ConfigKeeper(self._api, config_path, watch_seconds)
        self._log = AccessLog(layout.access_log)
        # Its own threads: a switch does not wait for somebody's slow download.
        self._threads = CapacityLimiter(4)
        self._changing = asyncio.Lock()  # the set of endpoints, and whatever else changes the configuration

    @abstractmethod
    def _switch_of(self, endpoint: str) -> Switch: ...

    @abstractmethod
    async def set_traffic(self, endpoint: str, traffic: Traffic) -> None: ...

    async def start(self) -> None:
        """Caddy need not be there: it starts from the file written here, or is configured when it comes."""
        self._layout.admin_socket.parent.mkdir(parents=True, exist_ok=True)
        await to_thread.run_sync(self._slots.create, [DEFAULT_ENDPOINT], limiter=self._threads)
        await self._keeper.start(self._configure(await self.endpoints()))

    async def close(self) -> None:
        await self._keeper.close()
        await self._api.close()

    async def check(self) -> None:
        await self._keeper.check()

    async def ensure_endpoints(self, names: Sequence[str]) -> None:
        """While Caddy is away this holds too: it will find the routes in its file."""
        async with self._changing:
            made = await to_thread.run_sync(self._slots.create, names, limiter=self._threads)
            try:
                await self._keeper.install(self._configure(await self.endpoints()))
            except CaddyRefused:
                await to_thread.run_sync(self._slots.remove, made, limiter=self._threads)
                raise

    async def remove_endpoints(self, names: Sequence[str]) -> None:
        """Routes first: a route without a directory would keep requests waiting for it."""
        if DEFAULT_ENDPOINT in names:
            raise InvalidRequest("the default endpoint cannot be removed: it is the public URL itself")
        async with self._changing:
            left = [name for name in await self.endpoints() if name not in names]
            await self._keeper.install(self._configure(left))
            await to_thread.run_sync(self._slots.remove, names, limiter=self._threads)

    async def endpoints(self) -> list[str]:
        return await to_thread.run_sync(self._slots.names, limiter=self._threads)

    async def read_traffic(self, endpoint: str) -> Traffic:
        return self._slots.read(endpoint)

    async def mend_traffic(self, endpoint: str) -> bool:
        return await to_thread.run_sync(self._slots.mend, endpoint, limiter=self._threads)

    async def named_addresses(self) -> frozenset[str]:
        return await to_thread.run_sync(self._slots.named_addresses, limiter=self._threads)

    async def in_flight(self, address: str) -> int:
        return (await self._api.count_in_flight()).get(address, 0)

    async def rewind(self) -> str:
        return await to_thread.run_sync(self._log.rewind, limiter=self._threads)

    async def samples(self, cursor: str | None) -> tuple[list[Sample], str]:
        return await to_thread.run_sync(self._log.read, cursor, limiter=self._threads)

    async def _write(self, endpoint: str, traffic: Traffic) -> None:
        await to_thread.run_sync(self._slots.write, endpoint, traffic, limiter=self._threads)

    def _configure(self, names: Sequence[str]) -> Json:
        return build_config(self._layout, {name: self._switch_of(name) for name in names})
