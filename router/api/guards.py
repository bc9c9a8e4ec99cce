"""What no request may get past: a body of more than 1 MiB, and a web page of another site.

The router answers on loopback without a password, and every web page that its operator opens can make his
browser send requests there; browsers say where such a request comes from.
"""

from collections import deque

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.errors import error_response
from router.core.errors import BodyTooLarge

MAX_BODY_BYTES = 1024 * 1024
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class RequestGuards:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
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
