"""What a reload of Caddy drops unanswered, as it may (docs/endpoints.md), is sent again, and nothing else.

for attempt in reloads.attempts():
    with attempt:
        return send()
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import httpx

DROPPED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
MOST_TRIES = 50


class Reloads:
    """Of one Caddy, by its log: they excuse dropped requests until the first answer after them, no longer."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.answered_after = 0  # so many reloads

    def count(self) -> int:
        """Caddy says so before it closes the first connection of its old servers."""
        return self._log.read_text().count("servers shutting down")

    def attempts(self) -> Iterator["Attempt"]:
        """Ends with the one that was answered, or whose error has no such excuse: its block raises it."""
        for left in reversed(range(MOST_TRIES)):
            yield Attempt(self, last=not left)


class Attempt:
    def __init__(self, reloads: Reloads, *, last: bool) -> None:
        self._reloads = reloads
        self._last = last
        self._before = reloads.count()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> bool:
        if error is None:
            # Of several at once one that began before a reload may be answered last.
            self._reloads.answered_after = max(self._reloads.answered_after, self._before)
            return False
        excused = self._reloads.count() > self._reloads.answered_after
        return isinstance(error, DROPPED) and excused and not self._last


class AcrossReloads(httpx.AsyncHTTPTransport):
    def __init__(self, reloads: Reloads) -> None:
        super().__init__()
        self._reloads = reloads

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in self._reloads.attempts():
            with attempt:
                return await super().handle_async_request(request)
        raise AssertionError("attempts end by an answer or an error")
