"""What a runtime waits for, such as a pull, is seen in the record that waits for it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio
import structlog

from router.core.errors import SwitchyardError
from router.core.models import Record
from router.engine.ledger import Ledger
from router.engine.racing import race
from router.runtimes.base import Tell

T = TypeVar("T")

log = structlog.get_logger()


async def telling(ledger: Ledger, record: Record, act: Callable[[Tell], Awaitable[T]]) -> T:
    """What `act` tells becomes the record's `waiting_on`, the first of it an event, too."""
    news, latest = anyio.Event(), ""

    def tell(text: str) -> None:
        nonlocal latest
        latest = text
        news.set()

    async def write() -> T:
        nonlocal news
        begun = False
        while True:
            await news.wait()
            news = anyio.Event()
            try:
                stored = await ledger.store.get(type(record), record.id)
                if stored.waiting_on != latest:
                    await ledger.move(stored, "" if begun else f"waiting: {latest}", waiting_on=latest)
                begun = True
            except SwitchyardError as error:  # the next news are written; what is waited for goes on
                log.info("not recorded", subject=record.id, news=latest, error=error.message)

    return await race(partial(act, tell), write)
