"""The proxy itself: one request in, checked; at most one request like it out, written anew."""

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import httpx

from socket_proxy.docker import Docker
from socket_proxy.exchange import Exchange, Receive, Send
from socket_proxy.images import is_image_id, matches, read_reference
from socket_proxy.rebuild import INSTANCE_LABEL, OWNER_LABEL, read_creation, rebuild
from socket_proxy.refusal import Refused
from socket_proxy.settings import Settings
from socket_proxy.strict_json import parse_strictly
from socket_proxy.target import Call, Kind, narrow_filters, read_target

ANSWER_HEADERS = ("content-type", "content-length", "api-version", "ostype")

log = logging.getLogger("socket_proxy")


class SocketProxy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._docker = Docker(settings.docker_socket)
        self._label = f"{INSTANCE_LABEL}={settings.instance}"
        self._open: set[anyio.CancelScope] = set()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            call = read_target(exchange.method, exchange.raw_path, exchange.raw_query)
            creating = call.rule.kind is Kind.CREATION
            exchange.check_headers(with_body=creating)
            body = await exchange.read_body() if creating else b""
            async with exchange.ending_with_client() as cancel_scope:
                self._open.add(cancel_scope)
                try:
                    await self._carry_out(exchange, call, body)
                finally:
                    self._open.discard(cancel_scope)
        except Refused as refused:
            log.warning("refused %s: %s", exchange, refused.reason)
            await exchange.refuse(refused.status, refused.reason)
        except httpx.TransportError as error:
            log.warning("broken off %s: %s", exchange, type(error).__name__)
            if not exchange.started:  # otherwise an answer without its end tells the client
                await exchange.refuse(503, "Docker does not answer on its socket")

    def end_streams(self) -> None:
        """So that a log that is being followed does not hold up the end of the process."""
        for cancel_scope in self._open:
            cancel_scope.cancel()

    async def _carry_out(self, exchange: Exchange, call: Call, body: bytes) -> None:
        path, query, creation = call.path, call.query, None
        headers: dict[str, str] = {}
        match call.rule.kind:
            case Kind.PLAIN:
                pass
            case Kind.LISTING:
                query = narrow_filters(call, self._label)
            case Kind.CONTAINER:
                named = call.named["container"]
                # By the full id: the name may be another container's by the time Docker reads it.
                path = path.replace(named, await self._find_own(call, named), 1)
            case Kind.IMAGE:
                path = f"/images/{await self._allow_image(call, call.named['image'])}/json"
            case Kind.PULL:
                query = self._rebuild_pull(query)
                if "x-registry-auth" in exchange.headers:
                    headers["x-registry-auth"] = exchange.headers["x-registry-auth"]
            case Kind.CREATION:
                asked = read_creation(parse_strictly(body))
                image = await self._allow_image(call, asked.Image)
                creation = rebuild(asked, query.get("name", ""), image, self._settings)
        if creation is not None:
            headers["content-type"] = "application/json"
        async with self._docker.open(exchange.method, call.target(path, query), headers, creation) as answer:
            if answer.status_code < httpx.codes.OK:
                raise Refused("Docker has switched protocols", 502)
            if exchange.method not in ("GET", "HEAD"):
                log.info("passed %s: %d", exchange, answer.status_code)
            kept = {name: answer.headers[name] for name in ANSWER_HEADERS if name in answer.headers}
            await exchange.answer(answer.status_code, kept, answer.aiter_raw())

    async def _find_own(self, call: Call, named: str) -> str:
        """The full id of a container of ours."""
        found = await self._docker.fetch(call.target(f"/containers/{named}/json", {}))
        labels = found["Config"]["Labels"] or {}
        if labels.get(INSTANCE_LABEL) != self._settings.instance or not labels.get(OWNER_LABEL):
            raise Refused("this container is not one of ours")
        return str(found["Id"])

    async def _allow_image(self, call: Call, text: str) -> str:
        """The image as Docker is to be told. An id: if it has an allowed name, or runs already."""
        if not is_image_id(text):
            reference = read_reference(text)
            if not matches(reference, self._settings.images):
                raise Refused("this image is not one of those that may be used")
            return str(reference)
        found = await self._docker.fetch(call.target(f"/images/{text}/json", {}))
        names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
        if not any(
            "<none>" not in name and matches(read_reference(name), self._settings.images) for name in names
        ):
            await self._find_running(call, str(found["Id"]))
        return str(found["Id"])

    async def _find_running(self, call: Call, image_id: str) -> None:
        """An image keeps its right to run when its tag has moved on to another: a dead server is replaced."""
        query = narrow_filters(
            Call(call.rule, call.version, "/containers/json", {}, {"all": "1"}), self._label
        )
        containers = await self._docker.fetch(call.target("/containers/json", query))
        if not any(container["ImageID"] == image_id for container in containers):
            raise Refused("this image is not one of those that may be used")

    def _rebuild_pull(self, query: Mapping[str, str]) -> dict[str, str]:
        """One tag or digest: without a tag Docker would pull all of them."""
        name, tag = query.get("fromImage", ""), query.get("tag", "")
        text = f"{name}{'@' if is_image_id(tag) else ':'}{tag}" if tag else name
        reference = read_reference(text)
        if not matches(reference, self._settings.images):
            raise Refused("this image is not one of those that may be used")
        return {"fromImage": reference.name, "tag": reference.version}
