"""What the reference server does not keep: answers that nobody reads, bodies that nobody waits for."""

import gc
import sys
import threading
from functools import partial
from typing import Any

import anyio

from modelkit.serve.answers import About, Answer, Limits
from modelkit.serve.app import App
from tests.unit.modelkit.test_app import connect

INVOCATION = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}


async def give(body: bytes) -> Any:
    return {"type": "http.request", "body": body}


def tell(content: bytes, _body: bytes, _type: str | None) -> Answer:
    return Answer(200, content, "text/csv")


async def test_a_large_answer_goes_out_whole() -> None:
    for size in (2**18, 2**18 + 1, 2**20, 2**20 + 7):
        large = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        async with connect(partial(tell, large)) as client:
            answer = await client.post("/invocations", content=b"{}")
        assert answer.content == large
        assert answer.headers["content-length"] == str(size)


async def test_who_does_not_read_a_large_answer_is_given_up() -> None:
    app = App(partial(tell, bytes(2**20)), About("3.0.0"), Limits(request_seconds=0.05))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 2:
            await anyio.sleep_forever()

    await app(INVOCATION, partial(give, b"{}"), send)
    assert sent[-1]["more_body"]


async def test_a_request_that_waits_no_more_leaves_no_body_behind() -> None:
    released = threading.Event()
    bodies = [bytes(size) for size in (1000, 1001, 1002)]
    before = [sys.getrefcount(body) for body in bodies]
    statuses: list[int] = []

    def hang(_body: bytes, _type: str | None) -> Answer:
        released.wait()
        return Answer(200, b"{}", "application/json")

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    app = App(hang, About("3.0.0"), Limits(request_seconds=0.05, threads=1, turns=1))
    for place in range(len(bodies)):
        await app(INVOCATION, partial(give, bodies[place]), send)
    gc.collect()  # what a timeout leaves in circles goes by itself, later
    after = [sys.getrefcount(body) for body in bodies]
    released.set()
    assert statuses == [504, 0] * 3
    assert after[1:] == before[1:]  # the first one is with the thread
