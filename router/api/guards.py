"""What no request may get past: a body of more than 1 MiB, a web page of another site, a missing token.

The router answers on loopback without a password, and every web page that its operator opens can make his
browser send requests there; browsers say where such a request comes from.
"""

import re
import secrets
from collections import deque
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.errors import error_response
from router.core.errors import BodyTooLarge

MAX_BODY_BYTES = 1024 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/health", "/healthz", "/readyz"})  # for health checks, which hold no secrets


class RequestGuards:
    def __init__(self, app: ASGIApp, known_hosts: Collection[str] | None) -> None:
        """`known_hosts` are the names with a dot by which the router may be called; None: any."""
        self._app = app
        self._known_hosts = None if known_hosts is None else {host.lower() for host in known_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._is_called_by_its_name(headers.get("host", "")):
            message = "the router is not called by this name"
            hint = "use localhost or its address, or set PUBLIC_HOST or SWITCHYARD_TOKEN"
            await error_response(403, "unknown_host", message, hint)(scope, receive, send)
            return
        if scope["method"] not in SAFE_METHODS and _is_cross_site(headers):
            message = "a page of another site may not send this request"
            await error_response(403, "cross_site", message)(scope, receive, send)
            return
        body = await _read_body(headers, receive)
        if body is None:
            error = BodyTooLarge()
            await error_response(error.status, error.code, error.message)(scope, receive, send)
            return

        async def replay() -> Message:
            return body.popleft() if body else await receive()

        await self._app(scope, replay, send)

    def _is_called_by_its_name(self, host: str) -> bool:
        """DNS rebinding: a page whose own name suddenly means 127.0.0.1 counts as of the same site.

        Nobody can rebind an address, nor a name without a dot.
        """
        if self._known_hosts is None:
            return True
        name = re.sub(r":\d*$", "", host.lower()).rstrip(".")
        return "." not in name or name in self._known_hosts or is_address(name)


def is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class BearerToken:
    """RFC 6750: `Authorization: Bearer TOKEN` on every call but the health checks'."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        message = "this call needs the router's token"
        hint = "send the header `Authorization: Bearer TOKEN` with the value of SWITCHYARD_TOKEN"
        answer = error_response(401, "token_needed", message, hint)
        answer.headers["WWW-Authenticate"] = "Bearer"
        await answer(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        given = headers.get("authorization", "").encode("latin-1")
        return secrets.compare_digest(given, self._expected)


def _is_cross_site(headers: Headers) -> bool:
    if headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


async def _read_body(headers: Headers, receive: Receive) -> deque[Message] | None:
    """The messages of a whole body; None if it is too large, as soon as that is known."""
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        return None
    messages: deque[Message] = deque()
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            return None
        if message["type"] != "http.request" or not message.get("more_body", False):
            return messages
