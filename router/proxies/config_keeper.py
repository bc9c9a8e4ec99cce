"""Keeps Caddy on the configuration that the router wants, whichever of the two starts, dies or returns first.

The configuration is a file that Caddy starts from, so a restart needs no router; the running one is compared
with it again and again, so a Caddy that started from something else is put right without anybody asking.
"""

import asyncio
import json
from pathlib import Path

import structlog
from anyio import to_thread

from router.core.errors import ProxyUnavailable, StorageFull
from router.proxies.admin_api import AdminApi, CaddyRefused, CaddyUnreachable
from router.proxies.caddy_config import Json, render_config
from router.proxies.durable import replace_file, translate_storage_errors

log = structlog.get_logger(__name__)

FIRST_RETRY_SECONDS = 0.1


class ConfigKeeper:
    def __init__(self, api: AdminApi, path: Path, watch_seconds: float) -> None:
        self._api = api
        self._path = path
        self._watch_seconds = watch_seconds
        self._wanted: Json = {}
        self._rendered: tuple[Json, bytes] = ({}, b"")  # text of a configuration with many endpoints is dear
        self._seen: bytes | None = None  # Caddy's own text of the wanted configuration, once compared
        self._changing = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def start(self, config: Json) -> None:
        """Caddy need not be there, nor in a state to take the configuration: it gets it when it can."""
        async with self._changing:
            await self._write(config)
            self._want(config)
            try:
                await self._bring_about()
            except ProxyUnavailable as error:
                log.warning("caddy is not configured yet", error=error.message)
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch(), name="watch caddy")

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None

    async def install(self, config: Json) -> None:
        """Write the file and load it, unless it is what holds already. A Caddy that does not answer loads it
        later; one that refuses it goes on with the old one, and so does the file."""
        async with self._changing:
            if config == self._wanted:
                return
            before = self._wanted
            await self._write(config)
            self._want(config)
            try:
                await self._bring_about()
            except CaddyUnreachable as error:
                log.warning("caddy will be configured when it answers", error=error.message)
            except CaddyRefused:
                await self._take_back(before)
                raise

    async def patch(self, config: Json, object_id: str, value: Json) -> None:
        """Change one object of the running configuration, so that it becomes `config`; or nothing."""
        async with self._changing:
            before = self._wanted
            await self._write(config)
            try:
                await self._replace_or_load(config, object_id, value)
            except ProxyUnavailable:
                await self._take_back(before)
                raise
            self._want(config)

    async def check(self) -> None:
        """Raises ProxyUnavailable if Caddy does not run what it should and cannot be brought to.

        A router that stands by, or has ended, only asks: Caddy is another's to configure.
        """
        async with self._changing:
            if self._watch is None:
                await self._api.read_config()
            else:
                await self._write(self._wanted)  # a Caddy that starts next must find it whole
                await self._bring_about()

    async def _bring_about(self) -> None:
        running = await self._api.read_config()
        if running == self._seen:
            return
        if json.loads(running) != self._wanted:
            await self._api.load(self._render(self._wanted))
            log.info("caddy has a new configuration")
            # Its own words for what it was just given: were they ever others than ours, comparing them again
            # and again would reload it for ever.
            running = await self._api.read_config()
        self._seen = running

    async def _replace_or_load(self, config: Json, object_id: str, value: Json) -> None:
        try:
            await self._api.replace(object_id, value)
        except CaddyRefused:  # it has just started from something that lacks the object
            await self._api.load(self._render(config))

    async def _take_back(self, config: Json) -> None:
        self._want(config)
        await self._write(config)

    def _want(self, config: Json) -> None:
        self._wanted, self._seen = config, None

    async def _write(self, config: Json) -> None:
        await to_thread.run_sync(self._write_file, self._render(config))

    def _render(self, config: Json) -> bytes:
        if config is not self._rendered[0]:
            self._rendered = config, render_config(config)
        return self._rendered[1]

    def _write_file(self, text: bytes) -> None:
        with translate_storage_errors(f"writing Caddy's configuration to {self._path}"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists() or self._path.read_bytes() != text:
                replace_file(self._path, text)

    async def _keep_watch(self) -> None:
        lost = False
        pause = self._watch_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                await self.check()
            except (ProxyUnavailable, StorageFull) as error:
                if not lost:
                    log.warning("caddy is not as it should be; trying again", error=error.message)
                pause = min(2 * pause, self._watch_seconds) if lost else FIRST_RETRY_SECONDS
                lost = True
            else:
                if lost:
                    log.info("caddy answers again")
                pause, lost = self._watch_seconds, False
