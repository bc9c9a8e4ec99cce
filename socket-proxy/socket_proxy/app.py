"""The proxy itself: one request in, checked; at most one request like it out, written anew."""

import json
import logging
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

import anyio
import httpx

from socket_proxy.docker import Docker
from socket_proxy.exchange import Exchange, Receive, Send
from socket_proxy.images import Reference, is_allowed, is_image_id, may_be_allowed, read_reference
from socket_proxy.rebuild import INSTANCE_LABEL, OWNER_LABEL, read_creation, rebuild
from socket_proxy.refusal import Refused, show
from socket_proxy.settings import PREFIX, Settings
from socket_proxy.strict_json import parse_strictly
from socket_proxy.target import Call, Kind, narrow_filters, read_target

NOT_ALLOWED = f"{PREFIX}IMAGES (in .env: ALLOWED_IMAGES) does not allow this image to be used"
NOT_PULLED = f"{PREFIX}PULLS (in .env: ALLOWED_PULLS) does not allow this image to be pulled"
ANSWER_HEADERS = ("content-type", "content-length", "api-version", "ostype")

log = logging.getLogger("socket_proxy")


class SocketProxy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._docker = Docker(settings.docker_socket, settings.give_up_seconds)
        self._label = f"{INSTANCE_LABEL}={settings.instance}"
        self._open: WeakSet[anyio.CancelScope] = WeakSet()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            call = read_target(exchange.method, exchange.raw_path, exchange.raw_query)
            creating = call.rule.kind is Kind.CREATION
            exchange.check_headers(with_body=creating)
            body = await exchange.read_body() if creating else b""
            async with exchange.ending_with_client() as cancel_scope:
                self._open.add(cancel_scope)
                await self._carry_out(exchange, call, body)
            if not exchange.started:  # cut off by `end_streams`: 503 has the caller try again
                await exchange.refuse(503, "the socket proxy is ending")
        except Refused as refused:
            log.warning("refused %s: %s", exchange, refused.reason)
            await exchange.refuse(refused.status, refused.reason)
        except httpx.TransportError as error:
            log.warning("broken off %s: %s", exchange, type(error).__name__)
            if not exchange.started:  # otherwise an answer without its end tells the client
                await exchange.refuse(503, "Docker does not answer on its socket")

    def end_streams(self) -> None:
        """So that a log that is being followed does not hold up the end of the process. Calls end, too."""
        for cancel_scope in self._open:
            cancel_scope.cancel()

    async def _carry_out(self, exchange: Exchange, call: Call, body: bytes) -> None:
        path, query, headers, creation = call.path, call.query, {}, None
        match call.rule.kind:
            case Kind.PLAIN:
                pass
            case Kind.LISTING:
                query = narrow_filters(call, self._label)
            case Kind.CONTAINER:
                # By the full id: the name may be another container's by the time Docker reads it.
                path = f"/containers/{await self._find_own(call)}{call.named['action']}"
            case Kind.IMAGE:
                path = f"/images/{await self._allow_image(call, call.named['image'])}/json"
            case Kind.PULL:
                query = self._rebuild_pull(call)
                if login := exchange.headers.get("x-registry-auth"):
                    headers = {"x-registry-auth": login}
                    if not login.isascii():
                        raise Refused("X-Registry-Auth: must be base64", 400)
            case Kind.CREATION:
                asked = read_creation(parse_strictly(body))
                image = await self._allow_image(call, asked.Image)
                creation = rebuild(asked, call.query.get("name", ""), image, self._settings)
                for mount in creation["HostConfig"]["Mounts"]:
                    await self._check_volume(call, mount["Source"])
        target = call.target(path, query)
        async with self._docker.stream(exchange.method, target, headers=headers, json=creation) as answer:
            if answer.status_code < httpx.codes.OK:
                raise Refused("Docker has switched protocols", 502)
            if exchange.method not in ("GET", "HEAD"):
                log.info("passed %s %s: %d", exchange, dict(query), answer.status_code)
            kept = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
            await exchange.answer(answer.status_code, kept, answer.aiter_raw())

    async def _find_own(self, call: Call) -> str:
        """The full id of a container of ours."""
        found = await self._docker.fetch(call.target(f"/containers/{call.named['container']}/json", {}))
        labels = found["Config"]["Labels"] or {}
        if labels.get(INSTANCE_LABEL) != self._settings.instance or not labels.get(OWNER_LABEL):
            raise Refused("this container is not one of ours")
        return str(found["Id"])

    async def _allow_image(self, call: Call, text: str) -> str:
        """The image as Docker is to be told; the id of one that has an allowed name, or runs already."""
        if is_allowed(text, self._settings.images):
            return str(read_reference(text))
        if not is_image_id(text):
            text = str(self._expect_allowed_tag(text))
        found = await self._docker.fetch(call.target(f"/images/{text}/json", {}))
        names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
        if not any(is_allowed(name, self._settings.images) for name in names):
            # It may go on when its tag has moved to another: a server that has died is replaced.
            query = {"all": "1", "filters": json.dumps({"label": [self._label]})}
            containers = await self._docker.fetch(call.target("/containers/json", query))
            if not any(container["ImageID"] == found["Id"] for container in containers):
                raise Refused(NOT_ALLOWED)
        return str(found["Id"])

    async def _check_volume(self, call: Call, name: str) -> None:
        """One that is there already may be a folder of the host's by its options; else Docker makes it."""
        try:
            found = await self._docker.fetch(call.target(f"/volumes/{name}", {}))
        except Refused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return
            raise
        if found["Driver"] != "local" or found.get("Options"):
            raise Refused(f"HostConfig.Mounts: the volume {show(name)} was made with a driver or options")

    def _expect_allowed_tag(self, text: str) -> Reference:
        """A digest in a repository of which a tag is allowed: the image that it is must have such a tag."""
        if not may_be_allowed(text, self._settings.images):
            raise Refused(NOT_ALLOWED)
        return read_reference(text)

    def _allow_reference(self, text: str) -> Reference:
        if not is_allowed(text, self._settings.images):
            raise Refused(NOT_ALLOWED)
        return read_reference(text)

    def _rebuild_pull(self, call: Call) -> dict[str, str]:
        """One tag or digest: without a tag Docker would pull all of them."""
        name, tag = call.query.get("fromImage", ""), call.query.get("tag", "")
        separator = "@" if is_image_id(tag) else ":"
        reference = self._allow_reference(f"{name}{separator}{tag}" if tag else name)
        if not is_allowed(str(reference), self._settings.pulls):
            raise Refused(NOT_PULLED)
        return {"fromImage": reference.name, "tag": reference.version}
