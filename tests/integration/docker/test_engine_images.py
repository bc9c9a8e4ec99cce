"""What a rollout has proved is what users get, whatever becomes of the image's tag."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anyio import to_thread

from router.core.models import Rollout, Server
from router.engine.commands import Caller
from tests.integration.docker.engine_house import EngineHouse, open_engine_house
from tests.services.docker_puppets import Puppets

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(puppets: Puppets, tmp_path: Path) -> AsyncIterator[EngineHouse]:
    async with open_engine_house(puppets, tmp_path) as house:
        yield house


def tag_of(house: EngineHouse) -> str:
    """At a registry that refuses every connection."""
    return f"127.0.0.1:1/switchyard-{house.instance}:latest"


async def build(house: EngineHouse, mark: str) -> str:
    return await to_thread.run_sync(house.puppets.build, tag_of(house), f"{mark}-{house.instance}")


async def image_of(house: EngineHouse, server_id: str) -> str:
    server = await house.engine.store.get(Server, server_id)
    found = await to_thread.run_sync(house.puppets.docker.inspect_container, server.name)
    return str(found["Image"])


async def remove_by_hand(house: EngineHouse, server_id: str) -> None:
    server = await house.engine.store.get(Server, server_id)
    await to_thread.run_sync(lambda: house.puppets.docker.remove_container(server.name, force=True))


async def test_a_tag_that_moves_between_probe_and_switch_does_not_change_what_users_get(
    house: EngineHouse,
) -> None:
    proved = await build(house, "old")
    rollout = await house.roll(house.add_version(), tag_of(house))
    assert await build(house, "new") != proved
    await house.let_serve(rollout.server_id)
    rolled = await house.wait_for(Rollout, rollout.id, lambda rollout: rollout.phase.terminal)
    assert (rolled.phase, rolled.serve_digest) == ("succeeded", proved)
    assert await image_of(house, await house.active()) == proved

    spare = str(rolled.previous_server_id)
    await remove_by_hand(house, spare)
    await remove_by_hand(house, str(rolled.server_id))
    heir = await house.wait_for_server(besides={spare, str(rolled.server_id)})
    assert await image_of(house, heir) == proved


async def test_a_rollback_to_an_image_that_is_gone_is_refused_by_name_and_users_keep_what_they_have(
    house: EngineHouse,
) -> None:
    image = await build(house, "first")
    first = await house.roll_out(house.add_version(), tag_of(house))
    second = await house.roll_out(house.add_version())
    await remove_by_hand(house, str(first.server_id))
    await house.wait_for(Server, str(first.server_id), lambda server: server.phase == "stopped")
    await to_thread.run_sync(lambda: house.puppets.docker.remove_image(image, force=True))

    back = await house.engine.commands.roll_back(Caller())

    ended = await house.wait_for(Rollout, back, lambda rollout: rollout.phase.terminal)
    assert ended.failure is not None
    assert (ended.phase, ended.failure.code) == ("failed", "image_not_found")
    assert tag_of(house).rpartition(":")[0] in ended.failure.message
    assert await house.active() == second.server_id
