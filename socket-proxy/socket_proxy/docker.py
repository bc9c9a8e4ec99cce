"""Docker's side: one client on the socket. Requests are written anew; answers pass through as they come."""

import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx

from socket_proxy.refusal import Refused

# A log may be silent for hours, and a pull slow: only connecting and sending have a limit.
TIMEOUT = httpx.Timeout(30, connect=5, read=None)
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=16)
HEADERS = {"accept-encoding": "identity", "user-agent": "switchyard-socket-proxy"}

log = logging.getLogger("socket_proxy")


def end_process() -> None:
    signal.raise_signal(signal.SIGTERM)


class Docker(httpx.AsyncClient):
    """Every call raises httpx.TransportError where Docker does not answer.

    A daemon that is restarted makes its socket anew, and a mounted file stays the old one for as long as the
    container runs: so after `give_up_seconds` without any connection the process ends, to be restarted.
    """

    def __init__(
        self,
        socket: str,
        give_up_seconds: float,
        give_up: Callable[[], None] = end_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        transport = httpx.AsyncHTTPTransport(uds=socket, limits=LIMITS)
        super().__init__(transport=transport, base_url="http://docker", headers=HEADERS, timeout=TIMEOUT)
        self._give_up_seconds, self._give_up, self._clock = give_up_seconds, give_up, clock
        self._failing_since: float | None = None

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            answer = await super().send(request, **options)
        except httpx.ConnectError as error:
            now = self._clock()
            self._failing_since = self._failing_since or now
            if (seconds := now - self._failing_since) >= self._give_up_seconds:
                message = "no connection to Docker's socket for %.0f s, ending to be started again: %s"
                log.critical(message, seconds, error)
                self._give_up()
            raise
        self._failing_since = None
        return answer

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
