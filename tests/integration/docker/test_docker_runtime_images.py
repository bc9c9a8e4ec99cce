"""What was pinned is what runs, wherever its tag points by then."""

from collections.abc import AsyncIterator

import pytest
from anyio import to_thread

from router.core.errors import ImageNotFound
from tests.integration.docker.runtime_house import House, open_house
from tests.services.docker_puppets import Puppets

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(puppets: Puppets) -> AsyncIterator[House]:
    async with open_house(puppets) as house:
        yield house


async def test_a_tag_that_has_moved_does_not_change_what_is_launched(house: House) -> None:
    tag = f"switchyard-test-{house.puppets.token}-moved:{house.token}"
    first = await to_thread.run_sync(house.puppets.build, tag, f"old-{house.token}")
    image = await house.runtime.resolve_image(tag)
    second = await to_thread.run_sync(house.puppets.build, tag, f"new-{house.token}")
    assert first != second

    await house.runtime.launch(house.workload("trn_1", image))

    assert (await house.inspect("trn_1"))["Image"] == first
    assert (await house.runtime.resolve_image(tag)).digest == second


async def test_an_image_that_was_removed_since_is_refused_by_name(house: House) -> None:
    tag = f"127.0.0.1:1/switchyard-test-{house.puppets.token}:{house.token}"
    await to_thread.run_sync(house.puppets.build, tag, f"removed-{house.token}")
    image = await house.runtime.resolve_image(tag)
    await to_thread.run_sync(house.docker.remove_image, tag)

    with pytest.raises(ImageNotFound, match="is not on this host and cannot be pulled") as caught:
        await house.runtime.launch(house.workload("trn_1", image))

    assert tag.rpartition(":")[0] in caught.value.message
    assert await house.runtime.list_owned() == []


@pytest.mark.parametrize("written", ["", "Not An Image", "../containers/x", "a b", "http://x/y"])
async def test_what_is_not_the_name_of_an_image_is_refused_by_name(house: House, written: str) -> None:
    with pytest.raises(ImageNotFound) as caught:
        await house.runtime.resolve_image(written)
    assert repr(written) in caught.value.message
