"""Ends are told once, also those that happen while Docker does not answer."""

from collections.abc import AsyncIterator, Iterator

import pytest
from anyio import to_thread

from router.core.errors import RuntimeUnavailable
from tests.integration.docker.runtime_house import House, open_house
from tests.services.caddy import short_directory
from tests.services.docker_puppets import Puppets
from tests.services.engine_line import EngineLine

pytestmark = pytest.mark.anyio


@pytest.fixture
def line(docker_host: str) -> Iterator[EngineLine]:
    with short_directory() as directory:
        line = EngineLine(directory, docker_host)
        line.start()
        yield line
        line.stop()


@pytest.fixture
async def house(puppets: Puppets, line: EngineLine) -> AsyncIterator[House]:
    async with open_house(puppets, line.address) as house:
        yield house


async def test_what_ends_while_docker_does_not_answer_is_told_once_it_does(
    house: House, line: EngineLine
) -> None:
    for owner in ("trn_1", "trn_2", "trn_3", "trn_4"):
        await house.launch(owner)
    await house.order("trn_1", "exit 1")
    await house.listener.wait_for("trn_1")

    await to_thread.run_sync(line.stop)
    with pytest.raises(RuntimeUnavailable):
        await house.runtime.inspect("trn_2")
    await house.order("trn_2", "exit 2")
    await to_thread.run_sync(lambda: house.docker.wait(house.name_of("trn_2")))
    await to_thread.run_sync(lambda: house.docker.remove_container(house.name_of("trn_3"), force=True))
    await to_thread.run_sync(line.start)

    await house.listener.wait_for("trn_2")
    await house.listener.wait_for("trn_3")
    await house.order("trn_4", "exit 4")
    await house.listener.wait_for("trn_4")
    assert sorted(house.listener.heard) == ["trn_1", "trn_2", "trn_3", "trn_4"]
    assert (await house.state_of("trn_2")).exit_code == 2


async def test_a_cut_stream_is_taken_up_again_any_number_of_times(house: House, line: EngineLine) -> None:
    for number in range(3):
        owner = f"trn_{number}"
        await house.launch(owner)
        await to_thread.run_sync(line.stop)
        await to_thread.run_sync(line.start)
        await house.order(owner, "exit 0")
        await house.listener.wait_for(owner)
    assert house.listener.heard == ["trn_0", "trn_1", "trn_2"]


async def test_start_may_be_repeated(house: House) -> None:
    await house.runtime.start()
    await house.launch("trn_1")
    await house.order("trn_1", "exit 0")
    await house.listener.wait_for("trn_1")
    assert house.listener.heard == ["trn_1"]
