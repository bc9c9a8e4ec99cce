"""Environments of containers that are as large as they may be, and larger."""

import json
from pathlib import Path

import pytest

from router.core.errors import UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import Role
from router.runtimes.base import Image, Workload
from router.runtimes.docker_create import MOST_ENVIRONMENT
from tests.integration.docker.runtime_house import House, open_house, proxy_settings
from tests.services.docker_puppets import Puppets
from tests.services.marks import new_mark
from tests.services.socket_proxy import run_socket_proxy

pytestmark = pytest.mark.anyio

LARGEST = {"X": "x" * (MOST_ENVIRONMENT - len(json.dumps(["X="])))}
TOO_LARGE = {"X": LARGEST["X"] + "x"}


def workload(house: House, image: Image, env: dict[str, str]) -> Workload:
    return Workload(owner="trn_1", role=Role.TRAINER, name=house.name_of("trn_1"), image=image, env=env)


async def test_the_largest_environment_passes_the_socket_proxy_and_a_larger_one_is_refused_before(
    puppets: Puppets, tmp_path: Path
) -> None:
    instance = f"test-{new_mark()}"
    settings = proxy_settings(puppets, instance, puppets.image)
    socket = Path(puppets.docker_host.removeprefix("unix://"))
    with run_socket_proxy(socket, tmp_path / "log", **settings) as proxy:
        async with open_house(puppets, proxy.url, instance) as house:
            image = await house.runtime.resolve_image(puppets.image)
            with pytest.raises(UnsupportedSetting, match=f"env cannot be honoured: .* {MOST_ENVIRONMENT}"):
                await house.runtime.launch(workload(house, image, TOO_LARGE))
            await house.runtime.launch(workload(house, image, LARGEST))
            assert f"X={LARGEST['X']}" in (await house.inspect("trn_1"))["Config"]["Env"]
    assert "413" not in (tmp_path / "log").read_text()


async def test_what_every_container_gets_counts_too(puppets: Puppets) -> None:
    async with open_house(puppets, environment={"Y": "y"}) as house:
        await house.runtime.refuse_unsupported(Resources(), None)
        with pytest.raises(UnsupportedSetting, match="env cannot be honoured"):
            await house.runtime.refuse_unsupported(Resources(), None, env=LARGEST)
