"""Ends, from Docker's stream of events; what ended while the stream was cut, from a listing after it.

An end is told once: whoever takes the container out of the watch tells, be it an event, a listing or a
removal.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

import structlog

from router.core.errors import RuntimeUnavailable
from router.runtimes.docker_client import Call, DockerClient, filters_of
from router.runtimes.docker_containers import INSTANCE, OWNER, RUNNING, Containers

RECONNECT_SECONDS = 0.5

log = structlog.get_logger()


class Watch:
    """All in the event loop."""

    def __init__(self, client: DockerClient, containers: Containers, heard: Callable[[str], None]) -> None:
        """`heard` gets the owner of what has ended, once Docker can say how."""
        self._client = client
        self._containers = containers
        self._heard = heard
        self._running: dict[str, tuple[str, asyncio.Event]] = {}  # owner -> container, its end
        self._following: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Returns when events come, or raises RuntimeUnavailable."""
        if self._following is not None and not self._following.done():
            return
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._following = asyncio.create_task(self._follow(ready))
        await ready

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
            self._following = None
        for task in list(self._settling):
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)
        self._running.clear()

    def add(self, owner: str, container_id: str) -> asyncio.Event:
        """Before it is started, so that no end comes too early. Returns its end."""
        known = self._running.get(owner)
        if known is None or known[0] != container_id:
            known = self._running[owner] = (container_id, asyncio.Event())
        return known[1]

    def forget(self, owner: str, container_id: str) -> None:
        if self._running.get(owner, ("",))[0] == container_id:
            del self._running[owner]

    def end(self, owner: str, container_id: str) -> None:
        """It has ended: tell whoever listens, unless that is done."""
        known = self._running.get(owner)
        if known is None or known[0] != container_id:
            return
        del self._running[owner]
        task = asyncio.create_task(self._settle(owner, *known))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, owner: str, container_id: str, ended: asyncio.Event) -> None:
        """Docker tells of an end before it has written it down: an inspection waits for that."""
        with suppress(RuntimeUnavailable):
            await self._containers.inspect(container_id)
        ended.set()
        self._heard(owner)

    async def _follow(self, ready: asyncio.Future[None]) -> None:
        told = False
        while True:
            try:
                await self._listen(ready)
                told = False
            except RuntimeUnavailable as error:
                if not ready.done():
                    ready.set_exception(error)
                    return
                if not told:
                    log.warning("Docker's events do not come; ends are told later", error=error.message)
                told = True
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, ready: asyncio.Future[None]) -> None:
        """Until the stream ends. Events since before the listing: what ends in between is in one of them."""
        filters = {
            "type": ["container"],
            "event": ["die"],
            "label": [f"{INSTANCE}={self._containers.instance}"],
        }
        query = {"since": str(await self._read_clock()), "filters": filters_of(filters)}
        lines = await self._client.open(Call("GET", "/events", query, seconds=None))
        try:
            await self._reconcile()
            if not ready.done():
                ready.set_result(None)
            log.info("following Docker's events", running=len(self._running))
            await lines.read(self._hear)
        finally:
            lines.close()

    async def _read_clock(self) -> int:
        """Docker's own, which may differ from ours: epoch seconds, rounded down."""
        date = await self._client.consume(Call("GET", "/_ping"), lambda answer: answer.headers["Date"])
        return int(parsedate_to_datetime(date).timestamp())

    async def _reconcile(self) -> None:
        known = {owner: container_id for owner, (container_id, _) in self._running.items()}
        listed = await self._containers.groups()
        for owner, container_id in known.items():
            alive = any(
                each.id == container_id and each.state in {"created", *RUNNING}
                for each in listed.get(owner, ())
            )
            if not alive:
                self.end(owner, container_id)
        for owner, group in listed.items():
            if group[0].state in RUNNING and owner not in self._running:
                self.add(owner, group[0].id)

    def _hear(self, event: dict[str, Any]) -> None:
        actor = event["Actor"]
        self.end(actor["Attributes"].get(OWNER, ""), actor["ID"])
