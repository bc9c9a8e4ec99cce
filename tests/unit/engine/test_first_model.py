"""The model of the settings, which is served at the start if nothing else is."""

from pathlib import Path

from router.core.errors import RegistryUnavailable
from router.core.models import Rollout
from tests.unit.engine.yard import Yard


async def test_the_default_model_is_served_if_nothing_is(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_model_name="Iris")
    yard.add_version()
    newest = yard.add_version()
    async with yard.run():
        assert await yard.served_version() == newest


async def test_what_serves_already_is_left_alone(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_model_name="Iris", default_model_version=2)
    first = yard.add_version()
    async with yard.run() as engine:
        assert await yard.served_version() is None
        await yard.roll(engine, first)
        yard.add_version()
        await yard.clock.advance(60)
        assert await yard.served_version() == first
    async with yard.run():
        assert await yard.served_version() == first


async def test_a_registry_that_is_late_is_waited_for(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_model_name="Iris", default_model_version=1)
    yard.add_version()
    yard.registry.fail_with(RegistryUnavailable())
    async with yard.run():
        assert await yard.served_version() is None
        yard.registry.fail_with(None)
        await yard.clock.advance(6)
        assert await yard.served_version() == 1


async def test_a_first_rollout_that_fails_for_want_of_an_image_is_tried_again(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_model_name="Iris")
    yard.add_version()
    yard.runtime.missing.add("sources/iris")
    async with yard.run():
        await yard.clock.advance(4)
        assert await yard.served_version() is None
        yard.runtime.missing.clear()
        await yard.clock.advance(20)
        assert await yard.served_version() == 1


async def test_a_default_model_that_is_judged_is_not_tried_again(tmp_path: Path) -> None:
    yard = Yard(tmp_path, default_model_name="Iris")
    yard.add_version()
    yard.answers.predictions["sources/iris"] = [[1.0], [2.0], [3.0]]
    async with yard.run() as engine:
        await yard.clock.advance(600)
        assert await yard.served_version() is None
        (rollout,) = await engine.store.find(Rollout)
        assert rollout.failure is not None
        assert rollout.failure.code == "gate_failed"
