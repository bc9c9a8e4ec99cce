"""The drivers that a contract is held against, where more than one module of tests asks for them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.stores.base import Store
from router.stores.memory import MemoryStore
from router.stores.sql import SqlStore


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened_store = _open(request, tmp_path)
    await opened_store.start()
    yield opened_store
    await opened_store.close()


def _open(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqlStore(f"sqlite:///{tmp_path}/state/store.db")
    return SqlStore(request.getfixturevalue("postgres").create_database())
