"""Images that come from a real registry."""

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from anyio import to_thread

from router.core.errors import ImageNotFound
from router.runtimes import docker_progress
from tests.integration.docker.runtime_house import House, open_house
from tests.services.docker_puppets import Puppets
from tests.services.registry import Registry, run_registry

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def registry(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with run_registry(docker_host, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
async def house(puppets: Puppets) -> AsyncIterator[House]:
    async with open_house(puppets) as house:
        yield house


async def test_an_image_that_is_missing_is_pulled_pinned_and_run(
    registry: Registry, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_progress, "TELL_SECONDS", 0)
    name = f"{registry.repository}/server"
    digest = await to_thread.run_sync(registry.add, f"{name}:1")
    told: list[str] = []

    image = await house.runtime.resolve_image(f"{name}:1", None, told.append)
    await house.runtime.launch(house.workload("trn_1", image))

    assert image.digest == digest
    assert (await house.inspect("trn_1"))["Config"]["Image"] == f"{name}@{digest}"
    assert told[0] == f"the image {name}:1 is being pulled"
    end = re.search(r": (\d+) of (\d+) layers are there, (\d+) MB came$", told[-1])
    assert end is not None, told
    assert end[1] == end[2]
    assert int(end[3]) > 0


async def test_a_tag_that_the_registry_lacks_is_named(registry: Registry, house: House) -> None:
    missing = f"{registry.repository}/server:nowhere"
    with pytest.raises(ImageNotFound, match=r"cannot be pulled: .*unknown") as caught:
        await house.runtime.resolve_image(missing)
    assert missing in caught.value.message


async def test_what_was_pinned_is_pulled_again_though_its_tag_has_moved(
    registry: Registry, house: House
) -> None:
    name = f"{registry.repository}/moved"
    digest = await to_thread.run_sync(registry.add, f"{name}:1")
    image = await house.runtime.resolve_image(f"{name}:1")
    await to_thread.run_sync(registry.remove_pulled)
    assert await to_thread.run_sync(registry.add, f"{name}:1") != digest
    told: list[str] = []

    again = await house.runtime.resolve_image(image.reference, image.digest, told.append)
    await house.runtime.launch(house.workload("trn_1", again))

    assert again == image
    assert told[0] == f"the image {name}@{digest} is being pulled"
    assert (await house.inspect("trn_1"))["Config"]["Image"] == f"{name}@{digest}"


async def test_a_registry_that_stalls_ends_a_pull_at_its_deadline(
    registry: Registry, puppets: Puppets
) -> None:
    reference = f"{registry.repository}/slow:1"
    await to_thread.run_sync(registry.add, reference)
    async with open_house(puppets, pull_seconds=1) as house:
        os.kill(registry.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(ImageNotFound, match="was not pulled within 1 s") as caught:
                await house.runtime.resolve_image(reference)
        finally:
            os.kill(registry.process.pid, signal.SIGCONT)
        assert reference in caught.value.message
