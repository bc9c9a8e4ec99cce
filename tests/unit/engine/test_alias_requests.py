"""An alias that somebody moves in the registry: what it starts, and where it points in the end."""

from dataclasses import replace
from pathlib import Path

import pytest

from router.core.models import Rollout, RolloutPhase
from router.core.strategies import Strategy
from router.engine.engine import Engine
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path, alias_poll_seconds=10.0)
    for _ in range(3):
        yard.add_version()
    return yard


async def rollouts(engine: Engine) -> list[Rollout]:
    return await engine.store.find(Rollout)


async def test_an_alias_that_is_moved_starts_a_rollout_of_its_version(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(11)
        assert await yard.served_version() == 3
        newest = (await rollouts(engine))[-1]
        assert (newest.requested_by, newest.phase) == ("the registry's alias", RolloutPhase.SUCCEEDED)
        assert newest.reason == "alias deployed was moved to version 3"
        await yard.clock.advance(100)
        assert len(await rollouts(engine)) == 2
        assert await yard.alias() == 3


async def test_an_alias_that_is_moved_back_ends_the_rollout_that_it_had_asked_for(yard: Yard) -> None:
    yard.policy = replace(yard.policy, plan=Strategy.model_validate({"strategy": "canary", "steps": [10]}))
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(11)
        assert (await rollouts(engine))[-1].phase is RolloutPhase.SHIFTING
        await yard.registry.set_alias("Iris", "deployed", 1)
        await yard.clock.advance(600)
        aborted = (await rollouts(engine))[-1]
        assert (aborted.version, aborted.phase) == (3, RolloutPhase.ROLLED_BACK)
        assert await yard.served_version() == await yard.alias() == 1


async def test_our_own_moves_ask_for_nothing(yard: Yard) -> None:
    async with yard.run() as engine:
        for version in (1, 2, 3):
            await yard.roll(engine, version)
            await yard.clock.advance(15)
        await yard.roll_back(engine)
        await yard.clock.advance(100)
        assert len(await rollouts(engine)) == 4
        assert await yard.served_version() == await yard.alias() == 2


async def test_an_alias_that_is_deleted_comes_back(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.delete_alias("Iris", "deployed")
        await yard.clock.advance(11)
        assert await yard.alias() == 1
        assert len(await rollouts(engine)) == 1


async def test_a_version_that_does_not_pass_is_not_served_and_the_alias_is_put_back(yard: Yard) -> None:
    await yard.registry.set_version_tags("Iris", 3, {"switchyard.serve_image": "sources/nan"})
    yard.answers.predictions["sources/nan"] = [float("nan")]
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(50)
        assert await yard.served_version() == 1
        assert await yard.alias() == 1
        assert [each.phase for each in await rollouts(engine)] == [
            RolloutPhase.SUCCEEDED,
            RolloutPhase.FAILED,
        ]
        events = [event.text for event in await engine.store.events("default")]
        assert any("put back on version 1" in text and "not finite" in text for text in events)
        await yard.registry.set_version_tags("Iris", 3, {"switchyard.serve_image": "sources/iris"})
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(50)
        assert await yard.served_version() == await yard.alias() == 3


async def test_an_alias_that_is_moved_during_a_rollout_is_taken_up_after_it(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        waiting = await yard.roll(engine, 2, plan=Strategy(promotion="manual", bake=0))
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(50)
        assert await yard.served_version() == 1
        await engine.steering.promote(waiting.id)
        await yard.clock.advance(50)
        assert await yard.served_version() == await yard.alias() == 3


async def test_another_router_does_not_ask_twice(yard: Yard) -> None:
    yard.answers.unready.add("sources/slow")
    await yard.registry.set_version_tags("Iris", 3, {"switchyard.serve_image": "sources/slow"})
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.set_alias("Iris", "deployed", 3)
        await yard.clock.advance(11)
        assert len(await rollouts(engine)) == 2
    async with yard.run() as engine:
        await yard.clock.advance(60)
        assert len(await rollouts(engine)) == 2


async def test_switched_off_the_alias_only_follows(tmp_path: Path) -> None:
    yard = Yard(tmp_path)
    yard.add_version()
    yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, 1)
        await yard.registry.set_alias("Iris", "deployed", 2)
        await yard.clock.advance(100)
        assert await yard.served_version() == 1
