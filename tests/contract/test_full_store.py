"""A store whose disk is full: the old state stays whole, and nothing is restarted when there is room."""

import secrets
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from router.core.errors import StorageFull, StoreUnavailable
from router.core.models import Training
from router.stores.base import Claim, Update
from router.stores.sql import SqlStore
from tests.records import make_training, opened, told
from tests.services.postgres import Postgres, give_to_server_user
from tests.services.small_disk import may_mount, mount_small_disk

pytestmark = pytest.mark.anyio
SECRET = "s3cret-of-the-trainer"  # noqa: S105 - looked for in what is said


@dataclass
class Room:
    """A store's address, and what takes the room around it and gives it back."""

    url: str
    fill: Callable[[], None]
    free: Callable[[], None]


def sqlite_on_a_small_disk(stack: ExitStack, request: pytest.FixtureRequest) -> Room:
    directory = request.getfixturevalue("tmp_path") / "disk"
    disk = stack.enter_context(mount_small_disk(directory, 2 * 2**20))
    return Room(f"sqlite:///{directory}/store.db", disk.fill, disk.free)


def postgresql_on_a_small_disk(stack: ExitStack, request: pytest.FixtureRequest) -> Room:
    postgres: Postgres = request.getfixturevalue("postgres")
    directory = postgres.directory / f"disk-{secrets.token_hex(4)}"
    disk = stack.enter_context(mount_small_disk(directory, 24 * 2**20))
    tablespace = directory / "space"
    tablespace.mkdir()
    give_to_server_user(tablespace)
    url = postgres.create_database(tablespace)
    stack.callback(postgres.drop_database, url)
    return Room(url, disk.fill, disk.free)


def sqlite_at_its_limit(stack: ExitStack, request: pytest.FixtureRequest) -> Room:
    """For machines where a test may mount nothing: SQLite's own limit, which it reports as a full disk."""
    connections: list[Any] = []

    def note(connection: Any, _: object) -> None:
        connections.append(connection)

    def limit(pages: int) -> None:
        for connection in connections:
            connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", note)
    stack.callback(event.remove, Engine, "connect", note)
    tmp_path: Path = request.getfixturevalue("tmp_path")
    return Room(f"sqlite:///{tmp_path}/store.db", lambda: limit(1), lambda: limit(1_000_000))


ROOMS = [sqlite_at_its_limit]
if may_mount():
    ROOMS += [sqlite_on_a_small_disk, postgresql_on_a_small_disk]


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    with ExitStack() as stack:
        yield request.param(stack, request)


async def test_a_full_disk_refuses_the_change_keeps_the_old_state_and_needs_no_restart(room: Room) -> None:
    store = SqlStore(room.url)
    await store.start()
    try:
        await store.apply(opened(make_training("counter")))
        room.fill()
        made: list[str] = []
        with pytest.raises(StorageFull, match="nothing was changed") as refusal:
            await make_until_full(store, made)
        assert SECRET not in "".join(traceback.format_exception(refusal.value))
        await assert_holds_exactly(store, made)

        room.free()
        await make_one(store, len(made))
        await assert_holds_exactly(store, [*made, f"trn_{len(made)}"])
        await store.check()
    finally:
        await store.close()


async def make_until_full(store: SqlStore, made: list[str]) -> None:
    for number in range(2000):
        await make_one(store, number)
        made.append(f"trn_{number}")


async def make_one(store: SqlStore, number: int) -> None:
    """Several changes that count only together. The log is random, so that no database can compress it."""
    counter = await store.get(Training, "counter")
    training = make_training(f"trn_{number}", logs_tail=secrets.token_hex(10_000), env={"TOKEN": SECRET})
    await store.apply(
        Update(counter, counter.evolve(2.0, version=number), told("counter", str(number))),
        opened(training),
        Claim(f"key {number}", "same", training.id, 1.0),
    )


async def assert_holds_exactly(store: SqlStore, made: list[str]) -> None:
    assert (await store.get(Training, "counter")).revision == len(made)
    assert [training.id for training in await store.find(Training)] == ["counter", *made]
    texts = [event.text for event in await store.events("counter", limit=5000)]
    assert texts == ["opened", *(str(number) for number in range(len(made)))]
    claims = [await store.claimed(f"key {number}") for number in range(len(made) + 1)]
    assert [claim and claim.record_id for claim in claims] == [*made, None]


if may_mount():  # a check rewrites one page, which fits under SQLite's own limit

    async def test_the_check_of_a_store_without_room_says_so(tmp_path: Path) -> None:
        with mount_small_disk(tmp_path / "disk", 2 * 2**20) as disk:
            store = SqlStore(f"sqlite:///{disk.directory}/store.db")
            await store.start()
            disk.fill()
            with pytest.raises(StoreUnavailable, match="full"):
                await check_often(store)
            disk.free()
            await store.check()
            await store.close()


async def check_often(store: SqlStore) -> None:
    """A check writes little: a few may fit into the rest of the last block."""
    for _ in range(50):
        await store.check()
