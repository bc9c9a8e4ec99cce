"""Whatever a test has launched is ended after it, by a runtime of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.runtimes.process import ProcessRuntime
from tests.integration.runtimes.workshop import Workshop


@pytest.fixture
async def workshop(tmp_path: Path) -> AsyncIterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    runtime = workshop.make_runtime()
    await runtime.start()
    for state in await runtime.list_owned():
        await runtime.remove(state.owner)
    await runtime.close()


@pytest.fixture
async def runtime(workshop: Workshop) -> AsyncIterator[ProcessRuntime]:
    runtime = workshop.make_runtime()
    await runtime.start()
    yield runtime
    await runtime.close()
