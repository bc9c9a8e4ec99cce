"""The proxy for a Caddy that shares no disk with the router: traffic is changed through the admin API.

It keeps the same slot directories, so that a switch is durable and the next router finds what users got, and
then replaces the endpoint's routes in the running configuration. Each such change makes Caddy rebuild its
servers and costs requests (`bench/` shows how many); where a disk can be shared, `caddy_slots` loses none.
"""

import asyncio

from router.core.errors import SwitchyardError
from router.core.traffic import Traffic
from router.proxies.caddy_config import Switch, build_endpoint, endpoint_id
from router.proxies.caddy_proxy import CaddyProxy
from router.proxies.slot_directory import cut_of


class CaddyAdmin(CaddyProxy):
    """Addresses and shares stand in Caddy's configuration itself."""

    async def set_traffic(self, endpoint: str, traffic: Traffic) -> None:
        """Carried to its end even if the caller stops waiting: directory and Caddy must not disagree."""
        await asyncio.shield(self._set_traffic(endpoint, traffic))

    async def _set_traffic(self, endpoint: str, traffic: Traffic) -> None:
        async with self._changing:
            before = self._slots.read(endpoint)
            await self._write(endpoint, traffic)
            try:
                config = self._configure(await self.endpoints())
                routes = build_endpoint(self._layout, endpoint, self._switch_of(endpoint))
                await self._keeper.patch(config, endpoint_id(endpoint), routes)
            except SwitchyardError:
                await self._write(endpoint, before)
                raise

    def _switch_of(self, endpoint: str) -> Switch:
        traffic = self._slots.read(endpoint)
        return Switch(*self._slots.addresses(traffic), cut_of(traffic))
