"""A router that is killed while it writes: what was acknowledged is there, and nothing is there by half."""

import subprocess
import sys
from pathlib import Path

import pytest

from router.core.models import Endpoint, Training
from router.stores.sql import SqlStore
from tests.records import opened

pytestmark = pytest.mark.anyio
REPOSITORY = Path(__file__).parents[2]
WRITERS = 3


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    created: str = request.getfixturevalue("postgres").create_database()
    return created


async def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_nothing_by_half(url: str) -> None:
    store = SqlStore(url)
    await store.start()
    await store.apply(opened(Endpoint(id="counter", created_at=1, updated_at=1)))
    await store.close()

    acknowledged: set[str] = set()
    for life, count in enumerate((1, 2, 7, 30, 31, 64)):
        acknowledged |= write_until_killed(url, f"life{life}", count)
        await assert_is_whole(url, acknowledged)


def write_until_killed(url: str, life: str, count: int) -> set[str]:
    """The ids that a process acknowledged until it was killed, some time after the first `count` of them."""
    command = [sys.executable, "-m", "tests.integration.store_writer", url, life, str(WRITERS)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(count)]
        writer.kill()
        lines += writer.stdout.readlines()
    ids = {line.rstrip("\n") for line in lines if line.endswith("\n")}
    assert len(ids) >= count
    return ids


async def assert_is_whole(url: str, acknowledged: set[str]) -> None:
    store = SqlStore(url)
    await store.start()
    try:
        # PostgreSQL may still be at the commit of a client that is gone; this waits for the writer's turn.
        await store.check()
        made = [training.id for training in await store.find(Training)]
        events = await store.events(limit=10_000)
        counted = [event.text for event in events if event.subject == "counter"][1:]
        assert acknowledged <= set(made)
        assert counted == made
        assert (await store.get(Endpoint, "counter")).revision == len(made)
        assert [event.subject for event in events if event.text == "opened"][1:] == made
        for training_id in made:
            claim = await store.claimed(training_id)
            assert claim is not None
            assert claim.record_id == training_id
    finally:
        await store.close()
