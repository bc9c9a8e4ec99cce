"""A process that writes to a store for as long as it lives, and says what has been acknowledged.

python -m tests.integration.store_writer URL LIFE WRITERS: each writer makes a training, counts it on a record
that all of them share, and claims a key, in one change; then it prints the training's id.
"""

import sys

import anyio

from router.core.errors import StaleRecord
from router.core.models import Endpoint
from router.stores.base import Claim, Update
from router.stores.sql import SqlStore
from tests.records import make_training, opened, told


async def write_for_ever(store: SqlStore, writer: str) -> None:
    number = 0
    while True:
        counter = await store.get(Endpoint, "counter")
        training_id = f"{writer}_{number}"
        try:
            await store.apply(
                opened(make_training(training_id, logs_tail="x" * 20_000)),
                Update(counter, counter.evolve(2.0), told("counter", training_id)),
                Claim(training_id, "same", training_id, 1.0),
            )
        except StaleRecord:
            continue  # another writer counted first
        sys.stdout.write(f"{training_id}\n")
        sys.stdout.flush()
        number += 1


async def main(url: str, life: str, writers: int) -> None:
    store = SqlStore(url)
    await store.start()
    async with anyio.create_task_group() as group:
        for writer in range(writers):
            group.start_soon(write_for_ever, store, f"{life}_{writer}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
