"""Docker's side: one client on the socket. Requests are written anew; answers pass through as they come."""

from typing import Any

import httpx

from socket_proxy.refusal import Refused

# A log may be silent for hours, and a pull slow: only connecting and sending have a limit.
TIMEOUT = httpx.Timeout(30, connect=5, read=None)
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=16)
HEADERS = {"accept-encoding": "identity", "user-agent": "switchyard-socket-proxy"}


class Docker(httpx.AsyncClient):
    """Every call raises httpx.TransportError where Docker does not answer."""

    def __init__(self, socket: str) -> None:
        transport = httpx.AsyncHTTPTransport(uds=socket, limits=LIMITS)
        super().__init__(transport=transport, base_url="http://docker", headers=HEADERS, timeout=TIMEOUT)

    async def fetch(self, target: str) -> Any:
        """The JSON of a short answer. Raises Refused with Docker's own status and message."""
        answer = await self.get(target)
        try:
            found = answer.json()
        except ValueError as error:
            raise Refused("Docker's answer is not JSON", 502) from error
        if answer.status_code != httpx.codes.OK:
            raise Refused(str(found.get("message")), answer.status_code)
        return found
