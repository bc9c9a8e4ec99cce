"""The default proxy: Caddy reads the slot directory for every request, so a switch is one rename, no reload.

Only adding and removing endpoints changes Caddy's configuration, and with it reloads Caddy, which may cost
requests: both take many names at once.
"""

from router.core.traffic import Traffic
from router.proxies.caddy_config import Switch, read_switch_from
from router.proxies.caddy_proxy import CaddyProxy


class CaddySlots(CaddyProxy):
    """Router and Caddy see the slots at the same path."""

    async def set_traffic(self, endpoint: str, traffic: Traffic) -> None:
        """Needs nothing of Caddy, which may be down."""
        await self._write(endpoint, traffic)

    def _switch_of(self, endpoint: str) -> Switch:
        return read_switch_from(self._slots.root, endpoint)
