"""The registry's alias follows what users get, through outages and kills."""

from pathlib import Path

import anyio
import pytest

from router.core.errors import RegistryUnavailable
from router.core.models import Endpoint
from router.engine.commands import Caller, RolloutRequest
from tests.unit.engine.yard import EXAMPLE, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def hang_after_setting(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry moves the alias, and its answer never comes."""
    set_alias = yard.registry.set_alias

    async def set_and_hang(name: str, alias: str, version: int) -> None:
        await set_alias(name, alias, version)
        await anyio.sleep_forever()

    monkeypatch.setattr(yard.registry, "set_alias", set_and_hang)


async def test_the_alias_follows_when_the_registry_is_back(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        yard.registry.fail_with(RegistryUnavailable("away"))
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.settle()
        assert await yard.served_version() == first
        yard.registry.fail_with(None)
        await yard.clock.advance(30)
        assert await yard.alias() == first
        endpoint = await yard.store.get(Endpoint, "default")
        assert endpoint.alias_version == first


@pytest.mark.parametrize("poll", [0, 10])
async def test_an_alias_that_was_moved_but_not_remembered_is_moved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poll: float
) -> None:
    """The router is killed after MLflow has moved it, and users get again what it pointed to before."""
    yard = Yard(tmp_path, alias_poll_seconds=poll)
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        await yard.roll(engine, second)
        hang_after_setting(yard, monkeypatch)
        await yard.roll_back(engine)
        assert await yard.alias() == first
        await yard.roll_back(engine)
        assert await yard.served_version() == second
    monkeypatch.undo()
    async with yard.run():
        assert await yard.served_version() == second
        assert await yard.alias() == second
        await yard.clock.advance(60)
        assert await yard.served_version() == second


async def test_no_other_model_keeps_the_alias_of_a_router_that_was_killed(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = yard.add_version()
    yard.registry.add_version("Roses", input_example=EXAMPLE)
    async with yard.run() as engine:
        await yard.roll(engine, first)
        hang_after_setting(yard, monkeypatch)
        await engine.commands.start_rollout(RolloutRequest(name="Roses", ref=1), Caller())
        await yard.clock.settle()
        assert await yard.registry.aliases("Roses") == {"deployed": 1}
        await yard.roll_back(engine)
    monkeypatch.undo()
    async with yard.run():
        assert await yard.registry.aliases("Iris") == {"deployed": first}
        assert await yard.registry.aliases("Roses") == {}
