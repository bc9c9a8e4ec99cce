"""GPUs, as far as a machine without any can show: what is asked of Docker, and how a refusal is told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.core.errors import LaunchFailed
from tests.integration.docker.runtime_house import open_house, proxy_settings
from tests.services.docker_puppets import Puppets
from tests.services.marks import new_mark
from tests.services.recording_relay import RecordingRelay, run_recording_relay
from tests.services.socket_proxy import run_socket_proxy

pytestmark = pytest.mark.anyio

COUNTS = [("all", -1), ("2", 2)]


@pytest.fixture
def relay(puppets: Puppets, socket_directory: Path) -> Iterator[RecordingRelay]:
    engine = Path(puppets.docker_host.removeprefix("unix://"))
    with run_recording_relay(socket_directory / "docker.sock", engine) as relay:
        yield relay


def asked_devices(relay: RecordingRelay) -> Any:
    """Of the last creation that has reached Docker."""
    sent = bytes(relay.connection_of("/containers/create").sent)
    text = sent.rpartition(b"/containers/create")[2].partition(b"\r\n\r\n")[2].decode()
    return json.JSONDecoder().raw_decode(text)[0]["HostConfig"].get("DeviceRequests")


@pytest.mark.parametrize(("gpus", "count"), COUNTS)
async def test_docker_is_asked_for_as_many_gpus_as_the_spec_says_and_the_lack_is_named(
    gpus: str, count: int, puppets: Puppets, relay: RecordingRelay
) -> None:
    async with open_house(puppets, f"unix://{relay.path}", gpus=True) as house:
        with pytest.raises(LaunchFailed, match="gpu") as caught:
            await house.launch("trn_1", gpus=gpus)
        assert f"the engine cannot give `gpus: {gpus}`" in str(caught.value.hint)
        assert await house.runtime.list_owned() == []
    assert asked_devices(relay) == [{"Count": count, "Capabilities": [["gpu"]]}]


async def test_without_gpus_docker_is_asked_for_none(puppets: Puppets, relay: RecordingRelay) -> None:
    async with open_house(puppets, f"unix://{relay.path}", gpus=True) as house:
        await house.launch("trn_1")
    assert asked_devices(relay) is None


@pytest.mark.parametrize(("gpus", "count"), COUNTS)
async def test_a_socket_proxy_that_allows_gpus_asks_for_as_many(
    gpus: str, count: int, puppets: Puppets, relay: RecordingRelay, tmp_path: Path
) -> None:
    instance = f"test-{new_mark()}"
    settings = proxy_settings(puppets, instance, puppets.image) | {"allow_gpus": "true"}
    with run_socket_proxy(relay.path, tmp_path / "log", **settings) as proxy:
        async with open_house(puppets, proxy.url, instance, gpus=True) as house:
            with pytest.raises(LaunchFailed, match="gpu") as caught:
                await house.launch("trn_1", gpus=gpus)
            assert f"the engine cannot give `gpus: {gpus}`" in str(caught.value.hint)
            assert await house.runtime.list_owned() == []
    assert asked_devices(relay) == [{"Count": count, "Capabilities": [["gpu"]]}]


async def test_a_socket_proxy_that_allows_no_gpus_says_so_and_asks_for_nothing(
    puppets: Puppets, relay: RecordingRelay, tmp_path: Path
) -> None:
    instance = f"test-{new_mark()}"
    settings = proxy_settings(puppets, instance, puppets.image)
    with run_socket_proxy(relay.path, tmp_path / "log", **settings) as proxy:
        async with open_house(puppets, proxy.url, instance, gpus=True) as house:
            with pytest.raises(LaunchFailed, match=r"HostConfig\.DeviceRequests: GPUs are not allowed here"):
                await house.launch("trn_1", gpus="all")
    assert not any("/containers/create" in request for request in relay.requests())
