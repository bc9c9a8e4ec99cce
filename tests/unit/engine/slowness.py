"""Calls of the runtime that take their time, by the fake clock."""

import pytest

from tests.unit.engine.yard import Yard


def let_logs_take(yard: Yard, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    read = yard.runtime.logs

    async def read_slowly(owner: str, tail_bytes: int) -> str:
        await yard.clock.sleep(seconds)
        return await read(owner, tail_bytes)

    monkeypatch.setattr(yard.runtime, "logs", read_slowly)


def let_stops_take(yard: Yard, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    stop = yard.runtime.stop

    async def stop_slowly(owner: str, grace_seconds: float) -> None:
        await yard.clock.sleep(seconds)
        await stop(owner, grace_seconds)

    monkeypatch.setattr(yard.runtime, "stop", stop_slowly)
