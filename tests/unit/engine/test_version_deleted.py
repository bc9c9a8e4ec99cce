"""A version that is deleted in the registry while it is rolled out: a clear end, and users keep a model."""

from pathlib import Path

import pytest

from router.core.models import Rollout, RolloutPhase
from router.core.strategies import Strategy
from tests.unit.engine.yard import Yard

CANARY = Strategy.model_validate(
    {"strategy": "canary", "steps": [10, 50], "hold": 30, "bake": 0, "analysis": {"enabled": False}}
)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    for _ in range(2):
        yard.add_version()
    return yard


async def test_before_its_launch_the_rollout_fails_and_says_why(yard: Yard) -> None:
    yard.answers.unready.add("sources/slow")
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2, serve_image="sources/slow")
        assert rollout.phase is RolloutPhase.PROBING
        yard.registry.delete_version("Iris", 2)
        yard.answers.unready.clear()
        await yard.clock.advance(60)
        failed = await engine.store.get(Rollout, rollout.id)
        assert failed.phase is RolloutPhase.FAILED
        assert failed.failure is not None
        assert "has no version 2" in failed.failure.message
        assert await yard.served_version() == await yard.alias() == 1
        assert rollout.server_id not in yard.runtime.running()


async def test_during_a_canary_its_server_goes_on_and_the_record_says_what_the_alias_could_not(
    yard: Yard,
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        rollout = await yard.roll(engine, 2, plan=CANARY)
        yard.registry.delete_version("Iris", 2)
        await yard.clock.advance(100)
        done = await engine.store.get(Rollout, rollout.id)
        assert done.phase is RolloutPhase.SUCCEEDED
        assert await yard.served_version() == 2
        assert any("has no version 2" in warning for warning in done.warnings)
