"""A router in memory, and calls to it, for the tests of the API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import httpx
from anyio.lowlevel import checkpoint

from router.api.app import make_app
from router.core.models import Training
from router.engine.engine import Engine
from tests.unit.engine.yard import EXAMPLE, Yard


@asynccontextmanager
async def calling(yard: Yard) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    async with yard.run() as engine:
        transport = httpx.ASGITransport(make_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            yield client, engine


async def end_training(yard: Yard, engine: Engine, exit_code: int = 0) -> None:
    """As soon as a trainer runs, it registers a version and ends."""
    while not (running := await engine.store.find(Training, phases=["running"])):
        await yard.clock.settle()
        await checkpoint()
    yard.registry.log_metrics(str(running[0].run_id), {"rmse": 55.0})
    yard.registry.add_version("Iris", running[0].run_id, input_example=EXAMPLE)
    yard.runtime.end(running[0].id, exit_code)


async def post_and_end(
    yard: Yard,
    client: httpx.AsyncClient,
    engine: Engine,
    path: str,
    exit_code: int = 0,
    **request: object,
) -> httpx.Response:
    answers: list[httpx.Response] = []
    async with anyio.create_task_group() as group:
        group.start_soon(partial(end_training, yard, engine, exit_code))
        answers.append(await client.post(path, **request))  # type: ignore[arg-type]
    return answers[0]
