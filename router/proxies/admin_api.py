"""Caddy's admin API over its unix socket, with its errors in the house's words."""

import json
from pathlib import Path
from urllib.parse import quote

import httpx

from router.core.errors import ProxyUnavailable
from router.proxies.caddy_config import Json

LOAD_SECONDS = 60.0  # with hundreds of endpoints, on a busy machine


class CaddyUnreachable(ProxyUnavailable):
    """Caddy's admin API does not answer."""


class CaddyRefused(ProxyUnavailable):
    """Caddy refused a change of its configuration; it goes on with the old one."""


class AdminApi:
    def __init__(self, socket: Path, timeout_seconds: float = 10) -> None:
        self._socket = socket
        self._client = httpx.AsyncClient(
            # A connection for each call: a kept one would break when Caddy restarts or reloads.
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket), verify=False, limits=httpx.Limits(max_keepalive_connections=0)
            ),
            base_url="http://127.0.0.1",
            timeout=timeout_seconds,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def read_config(self) -> bytes:
        return (await self._call("GET", "/config/")).content

    async def load(self, config: bytes) -> None:
        """Replace the whole configuration: Caddy reloads, unless it has the same one already."""
        await self._call("POST", "/load", config, LOAD_SECONDS)

    async def replace(self, object_id: str, value: Json) -> None:
        """Replace the object with this `@id`. CaddyRefused if there is none."""
        await self._call("PATCH", f"/id/{quote(object_id, safe='')}", json.dumps(value).encode())

    async def count_in_flight(self) -> dict[str, int]:
        """Requests inside each upstream now, by address."""
        rows = json.loads((await self._call("GET", "/reverse_proxy/upstreams")).content)
        return {row["address"]: row["num_requests"] for row in rows}

    async def _call(
        self, method: str, path: str, body: bytes | None = None, seconds: float | None = None
    ) -> httpx.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        timeout = self._client.timeout if seconds is None else httpx.Timeout(seconds)
        try:
            response = await self._client.request(
                method, path, content=body, headers=headers, timeout=timeout
            )
        except httpx.TransportError as error:
            raise CaddyUnreachable(
                f"Caddy does not answer on {self._socket} ({error!r}); what it serves was left as it was",
                hint="See whether Caddy runs and whether both see this socket.",
            ) from error
        if response.is_error:
            raise CaddyRefused(
                f"Caddy refused {method} {path}: {response.text.strip()[:500]}; it goes on as before",
                hint="See Caddy's log.",
            )
        return response
