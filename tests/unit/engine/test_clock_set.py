"""A wall clock that is set by an hour ends no hold and no bake, prolongs none, and blinds no watch."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from router.core.clock import SystemClock
from router.core.models import Rollout, RolloutPhase
from router.core.strategies import Strategy
from tests.unit.engine.yard import Yard

HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR])


@JUMPS
def test_the_routers_clock_goes_on_as_before(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    clock = SystemClock()
    before, wall = clock.now(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    assert 0 <= clock.now() - before < HOUR / 2


@JUMPS
async def test_the_watch_does_not_care_for_the_times_in_the_access_log(tmp_path: Path, jump: float) -> None:
    yard = Yard(tmp_path)
    first, second = yard.add_version(), yard.add_version()
    plan = Strategy.model_validate({"strategy": "canary", "steps": [20, 100], "hold": 600})
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second, plan=plan)
        candidate = await yard.server(rollout.server_id)
        assert candidate.address is not None
        yard.proxy.behaviour[candidate.address] = 500, 0.001
        for _ in range(12):
            seen = len(yard.proxy.recorded)
            for _ in range(100):
                yard.proxy.answer("default")
            late = [replace(sample, at=sample.at + jump) for sample in yard.proxy.recorded[seen:]]
            yard.proxy.recorded[seen:] = late
            await yard.clock.advance(0.25)
        ended = await engine.store.get(Rollout, rollout.id)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        assert await yard.served_version() == first
