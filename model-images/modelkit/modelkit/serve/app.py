"""The HTTP of the server contract: MLflow's paths, methods and status codes, with limits.

Plain ASGI, since a framework would take longer than a compiled prediction. A request is answered on the event
loop where the compiled model can; all else goes to a bounded number of threads, with a bounded queue.
"""

import asyncio
import itertools
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

from modelkit.serve.answers import About, Answer, Limits, Predict, PredictLean
from modelkit.serve.calls import (
    BadCall,
    Call,
    holds_samples,
    make_batch_call,
    make_samples_call,
    make_stream_call,
    tell_predictions,
)
from modelkit.serve.telemetry import Telemetry

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON = "application/json"
_LEAN_TYPES = frozenset(
    {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
)
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class _Gone(Exception):
    """The client went away before its request was complete."""


class App:
    def __init__(
        self,
        predict: Predict,
        about: About,
        limits: Limits,
        lean: PredictLean | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.is_leaving = False  # every answer closes its connection
        self.stuck = 0  # threads that were given up on, and are not free again
        self._predict, self._lean, self._limits, self._about = predict, lean, limits, about
        model = {"name": about.name or "", "version": about.version or "", "path": about.path}
        self._labels = {**model, "run_id": about.run_id or ""}
        self._telemetry = telemetry or Telemetry()
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="predict")
        self._ids = (b"%s-%x" % (os.urandom(4).hex().encode(), count) for count in itertools.count(1))
        self._headers = [] if about.version is None else [(b"x-model-version", about.version.encode())]
        self._samples = make_samples_call(about)
        self._routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            "/invocations": ("POST", self._invoke),
            "/ping": ("GET", self._ping),
            "/predict": ("POST", self._predict_call),
            "/stream": ("POST", partial(self._call, make_stream_call(about))),
            "/batch": ("POST", partial(self._call, make_batch_call(about))),
            "/": ("GET", self._tell_service),
            "/health": ("GET", self._tell_health),
            "/version": ("GET", self._tell_version),
            "/metadata": ("GET", self._tell_metadata),
            "/metrics": ("GET", self._tell_metrics),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, work = self._routes.get(scope["path"], ("", None))
        extra: list[tuple[bytes, bytes]] = []
        if work is None:
            answer = _tell(404, "Not Found")
        elif scope["method"] != method:
            answer, extra = _tell(405, "Method Not Allowed"), [(b"allow", method.encode())]
        else:
            try:
                answer = await work(scope, receive)
            except _Gone:
                return
            if answer.status == 503:
                extra = [(b"retry-after", b"1")]
        if self.is_leaving:
            extra.append((b"connection", b"close"))
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", _name_charset(answer.media_type)),
                    (b"content-length", b"%d" % len(answer.body)),
                    (b"x-request-id", _read_request_id(scope) or next(self._ids)),
                    *self._headers,
                    *extra,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _invoke(self, scope: Scope, receive: Receive) -> Answer:
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), None)
        body = await self._read_body(receive)
        return body if isinstance(body, Answer) else await self._count(body, content_type)

    async def _predict_call(self, scope: Scope, receive: Receive) -> Answer:
        body = await self._read_body(receive)
        if isinstance(body, Answer):
            return body
        if holds_samples(body):
            return await self._translate(self._samples, body)
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), None)
        return await self._count(body, content_type)

    async def _call(self, call: Call, _: Scope, receive: Receive) -> Answer:
        body = await self._read_body(receive)
        return body if isinstance(body, Answer) else await self._translate(call, body)

    async def _translate(self, call: Call, body: bytes) -> Answer:
        try:
            asked = call.ask(body)
        except BadCall as error:
            return self._refuse(422, str(error))
        answer = await self._count(asked, b"application/json")
        if answer.status != 200:
            return answer
        return Answer(200, tell_predictions(call, answer.body), _JSON)

    async def _count(self, body: bytes, content_type: bytes | None) -> Answer:
        started = time.perf_counter()
        lane, answer = await self._answer(body, content_type)
        self._telemetry.count(lane, answer.status, time.perf_counter() - started)
        return answer

    async def _answer(self, body: bytes, content_type: bytes | None) -> tuple[str, Answer]:
        if self._lean is not None and content_type in _LEAN_TYPES:
            if len(body) <= self._limits.inline_bytes:
                found = self._lean(body)
                if found is not None:
                    return self._about.path, Answer(200, found, _JSON)
            else:
                return await self._in_thread(self._try_both, body, content_type)
        return await self._in_thread(self._ask_native, body, content_type)

    def _try_both(self, body: bytes, content_type: str | None) -> tuple[str, Answer]:
        assert self._lean is not None
        found = self._lean(body)
        if found is None:
            return self._ask_native(body, content_type)
        return self._about.path, Answer(200, found, _JSON)

    def _ask_native(self, body: bytes, content_type: str | None) -> tuple[str, Answer]:
        return "native", self._predict(body, content_type)

    async def _in_thread(
        self, work: Callable[[bytes, str | None], tuple[str, Answer]], body: bytes, content_type: bytes | None
    ) -> tuple[str, Answer]:
        if self._telemetry.waiting >= self._limits.waiting:
            return "refused", _tell(503, f"{self._limits.waiting} requests are waiting already: try again")
        text = None if content_type is None else content_type.decode("latin-1")
        self._telemetry.waiting += 1
        loop = asyncio.get_running_loop()
        work_done = self._threads.submit(work, body, text)
        # It counts until its thread is free, which a caller who gives up does not change.
        work_done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                return await asyncio.shield(asyncio.wrap_future(work_done))
        except TimeoutError:
            if not work_done.cancel():
                self.stuck += 1
                work_done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._get_free))
            return "late", Answer(504, b"Request processing time exceeded limit", _JSON)

    def _leave(self) -> None:
        self._telemetry.waiting -= 1

    def _get_free(self) -> None:
        self.stuck -= 1

    async def _read_body(self, receive: Receive) -> bytes | Answer:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            body: bytes = message["body"]
            return body if len(body) <= self._limits.body_bytes else self._too_large()
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                return await self._read_pieces(message, receive)
        except TimeoutError:
            return self._refuse(
                408, f"the body was not complete after {self._limits.request_seconds:g} seconds"
            )

    async def _read_pieces(self, message: Message, receive: Receive) -> bytes | Answer:
        pieces, size = [], 0
        while True:
            if message["type"] == "http.disconnect":
                raise _Gone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._limits.body_bytes:
                return self._too_large()
            if not message.get("more_body"):
                return b"".join(pieces)
            message = await receive()

    def _too_large(self) -> Answer:
        return self._refuse(413, f"the body is larger than SERVE_MAX_BODY_BYTES={self._limits.body_bytes}")

    def _refuse(self, status: int, detail: str) -> Answer:
        self._telemetry.count_answer("refused", status)
        return _tell(status, detail)

    async def _ping(self, _: Scope, __: Receive) -> Answer:
        if self.stuck >= self._limits.threads:
            return _tell(503, "every thread is held by a prediction that does not end")
        return Answer(200, b"\n", _JSON)

    async def _tell_health(self, _: Scope, __: Receive) -> Answer:
        about, ping = self._about, await self._ping({}, __)
        model = {"name": about.name, "version": about.version, "run_id": about.run_id}
        told = {"status": "healthy" if ping.status == 200 else "unhealthy", "model": model}
        return Answer(ping.status, json.dumps(told).encode(), _JSON)

    async def _tell_service(self, _: Scope, __: Receive) -> Answer:
        about = self._about
        told = {"service": "modelkit", "model": about.name, "version": about.version}
        return Answer(200, json.dumps(told).encode(), _JSON)

    async def _tell_version(self, _: Scope, __: Receive) -> Answer:
        return Answer(200, self._about.mlflow_version.encode(), _JSON)

    async def _tell_metadata(self, _: Scope, __: Receive) -> Answer:
        about = self._about
        told = {
            "model_name": about.name,
            "model_version": about.version,
            "run_id": about.run_id,
            "mlflow_uri": about.mlflow_uri,
            "model_uri": about.uri,
            "model_loaded": True,
            "path": about.path,
            "reason": about.reason,
            "classes": about.class_names or about.classes,
            "columns": about.columns,
        }
        return Answer(200, json.dumps(told).encode(), _JSON)

    async def _tell_metrics(self, _: Scope, __: Receive) -> Answer:
        return Answer(
            200, self._telemetry.render(self._labels).encode(), "text/plain; version=0.0.4; charset=utf-8"
        )


@cache
def _name_charset(media_type: str) -> bytes:
    if media_type.startswith("text/") and "charset" not in media_type:
        media_type += "; charset=utf-8"
    return media_type.encode()


def _tell(status: int, detail: str) -> Answer:
    return Answer(status, json.dumps({"detail": detail}).encode(), _JSON)


def _read_request_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            found: bytes = value
            return found
    return None
