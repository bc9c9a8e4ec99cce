"""The HTTP of the server contract: MLflow's paths, methods and status codes, with limits.

Plain ASGI, since a framework would take longer than a compiled prediction. A request is answered on the event
loop where the compiled model can; all else goes to a bounded number of threads, with a bounded queue.
"""

import asyncio
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

from modelkit.serve.answers import About, Answer, Lean, Limits, Predict
from modelkit.serve.bodies import BadBody, Bodies, Gone, Receive
from modelkit.serve.calls import BadCall, Call, make_batch_call, make_samples_call, make_stream_call
from modelkit.serve.gathering import Gathering
from modelkit.serve.telemetry import Telemetry

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("modelkit.serve")

_JSON = "application/json"
_LEAN_TYPES = frozenset(
    {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
)
_PIECE = 2**18
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


# Their numbers are read one by one, which a megabyte has a hundred thousand of.
_MOST_CALL_BYTES = 2**20

# (body, its Content-Type or None) -> who answered, and what.
Work = Callable[[bytes, str | None], tuple[str, Answer]]
Lane = Callable[[bytes, bytes | None], Awaitable[tuple[str, Answer]]]


class App:
    def __init__(
        self,
        predict: Predict,
        about: About,
        limits: Limits,
        lean: Lean | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.is_leaving = False  # every answer closes its connection
        self.stuck = 0  # threads that were given up on, and are not free again
        self._predict, self._lean, self._limits, self._about = predict, lean, limits, about
        model = {"name": about.name or "", "version": about.version or "", "path": about.path}
        self._labels = {**model, "run_id": about.run_id or ""}
        self._telemetry = telemetry or Telemetry()
        self._gathering = None if lean is None else Gathering(lean.answer_together)
        self._threads = ThreadPoolExecutor(max(limits.threads, limits.turns), thread_name_prefix="predict")
        self._ids = (b"%s-%x" % (os.urandom(4).hex().encode(), count) for count in itertools.count(1))
        self._headers = [] if about.version is None else [(b"x-model-version", about.version.encode())]
        self._bodies = Bodies(limits)
        samples, stream, batch = make_samples_call(about), make_stream_call(about), make_batch_call(about)
        most, most_call = limits.body_bytes, min(_MOST_CALL_BYTES, limits.body_bytes)
        self._routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            "/invocations": ("POST", partial(self._take, self._answer, most)),
            "/ping": ("GET", self._ping),
            "/predict": ("POST", partial(self._take, partial(self._call, samples), most)),
            "/stream": ("POST", partial(self._take, partial(self._call, stream), most_call)),
            "/batch": ("POST", partial(self._take, partial(self._call, batch), most_call)),
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
            except Gone:
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
        await self._send_body(send, answer.body)

    async def _send_body(self, send: Send, body: bytes) -> None:
        """A large one by pieces, each when the one before has left: its client may not read at all."""
        sent = 0
        if len(body) > _PIECE:
            try:
                async with asyncio.timeout(self._limits.request_seconds):
                    for sent in range(_PIECE, len(body), _PIECE):
                        piece = body[sent - _PIECE : sent]
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            except TimeoutError:
                log.warning("a client has not read its answer of %d bytes", len(body))
                return
        await send({"type": "http.response.body", "body": body[sent:]})

    async def _take(
        self,
        work: Lane,
        most: int,
        scope: Scope,
        receive: Receive,
    ) -> Answer:
        """A request with a body of `most` bytes: read, answered, counted."""
        content_type = next((value for name, value in scope["headers"] if name == b"content-type"), None)
        try:
            message = await self._bodies.begin(receive)
            if message["type"] == "http.request" and not message.get("more_body"):
                return await self._count(work, self._bodies.check(message["body"], most), content_type)
            async with self._bodies.read(message, receive, most) as body:
                return await self._count(work, body, content_type)
        except BadBody as error:
            self._telemetry.count_answer("refused", error.status)
            return _tell(error.status, str(error))

    async def _count(
        self,
        work: Lane,
        body: bytes,
        content_type: bytes | None,
    ) -> Answer:
        started = time.perf_counter()
        lane, answer = await work(body, content_type)
        self._telemetry.count(lane, answer.status, time.perf_counter() - started)
        return answer

    async def _answer(self, body: bytes, content_type: bytes | None) -> tuple[str, Answer]:
        is_lean = content_type in _LEAN_TYPES and len(body) <= self._limits.inline_bytes
        if self._gathering is not None and is_lean:
            found = await self._gathering.ask(body)
            if found is not None:
                return self._about.path, Answer(200, found, _JSON)
            return await self._in_thread(self._ask_native, body, content_type)
        return await self._in_thread(self._choose(content_type), body, content_type)

    async def _call(self, call: Call, body: bytes, content_type: bytes | None) -> tuple[str, Answer]:
        if len(body) > self._limits.inline_bytes:  # which to read would hold the event loop, too
            plain = self._choose(content_type)
            return await self._in_thread(partial(self._call_in_thread, call, plain), body, content_type)
        try:
            asked = call.ask(body)
        except BadCall as error:
            return "refused", _tell(422, str(error))
        if asked is None:
            return await self._answer(body, content_type)
        lane, answer = await self._answer(asked, b"application/json")
        return lane, call.translate(answer)

    def _call_in_thread(
        self, call: Call, plain: Work, body: bytes, content_type: str | None
    ) -> tuple[str, Answer]:
        try:
            asked = call.ask(body)
        except BadCall as error:
            return "refused", _tell(422, str(error))
        if asked is None:
            return plain(body, content_type)
        lane, answer = self._try_both(asked, _JSON)
        return lane, call.translate(answer)

    def _choose(self, content_type: bytes | None) -> Work:
        return self._try_both if content_type in _LEAN_TYPES else self._ask_native

    def _try_both(self, body: bytes, content_type: str | None) -> tuple[str, Answer]:
        found = None if self._lean is None else self._lean.answer(body)
        if found is None:
            return self._ask_native(body, content_type)
        return self._about.path, Answer(200, found, _JSON)

    def _ask_native(self, body: bytes, content_type: str | None) -> tuple[str, Answer]:
        return "native", self._predict(body, content_type)

    async def _in_thread(self, work: Work, body: bytes, content_type: bytes | None) -> tuple[str, Answer]:
        if self._telemetry.waiting >= self._limits.waiting:
            return "refused", _tell(503, f"{self._limits.waiting} requests are waiting already: try again")
        text = None if content_type is None else content_type.decode("latin-1")
        self._telemetry.waiting += 1
        loop = asyncio.get_running_loop()
        held = [body]  # alone: a request that waits no more must not keep its body in the executor's queue
        del body
        work_done = self._threads.submit(lambda: work(held.pop(), text))
        # It counts until its thread is free, which a caller who gives up does not change.
        work_done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                return await asyncio.shield(asyncio.wrap_future(work_done))
        except TimeoutError:
            if work_done.cancel():
                held.clear()
            else:
                self.stuck += 1
                work_done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._get_free))
            return "late", Answer(504, b"Request processing time exceeded limit", _JSON)

    def _leave(self) -> None:
        self._telemetry.waiting -= 1

    def _get_free(self) -> None:
        self.stuck -= 1

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
            "classes": about.labels,
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
