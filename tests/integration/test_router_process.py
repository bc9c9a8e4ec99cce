"""The router as a process: how it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import uvicorn
from fastapi import FastAPI

from router.__main__ import Server, escape_controls

DEADLINE_SECONDS = 30


async def test_a_router_whose_work_has_broken_off_ends_instead_of_answering_that_it_is_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ticking = anyio.Event()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(break_off)
            yield

    async def break_off() -> None:
        await ticking.wait()
        raise ZeroDivisionError

    class Ticking(Server):
        async def on_tick(self, counter: int) -> bool:
            ticking.set()
            return await super().on_tick(counter)

    app = FastAPI(lifespan=lifespan)
    server = Ticking(uvicorn.Config(app, port=0, lifespan="on", log_config=None))
    with anyio.fail_after(DEADLINE_SECONDS):
        await server.serve()
    assert server.broken
    assert "ZeroDivisionError" in caplog.text


def test_nobody_ends_a_log_line_or_steers_a_terminal() -> None:
    said = {
        "event": "a server said",
        "answer": "\x1b[2J\x07\nforged line\u2028",
        "exception": "kept",
        "count": 1,
    }
    assert escape_controls(None, "info", said) == said | {"answer": r"\x1b[2J\x07\nforged line\u2028"}
