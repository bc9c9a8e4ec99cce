"""Containers that others make, take, copy or remove, and engines that are not there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from anyio import to_thread

from router.core.errors import LaunchFailed, RuntimeUnavailable, UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import Role
from tests.integration.docker.runtime_house import House, open_house
from tests.services.docker_puppets import Puppets

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(puppets: Puppets) -> AsyncIterator[House]:
    async with open_house(puppets) as house:
        yield house


async def test_the_end_of_a_container_that_was_removed_by_hand_is_told(house: House) -> None:
    await house.launch("srv_1", role=Role.SERVER)

    await to_thread.run_sync(lambda: house.docker.remove_container(house.name_of("srv_1"), force=True))

    await house.listener.wait_for("srv_1")
    assert await house.runtime.inspect("srv_1") is None
    assert house.listener.heard == ["srv_1"]


async def test_a_name_that_somebody_else_has_is_named_and_left_alone(house: House) -> None:
    name = house.name_of("trn_1")
    theirs = await house.create_by_hand(name, {})
    try:
        with pytest.raises(LaunchFailed, match=f"the name {name} is taken") as caught:
            await house.launch("trn_1")
        assert caught.value.hint == f"nothing was started; remove or rename the container {name}"
        assert (await house.inspect("trn_1"))["Id"] == theirs
    finally:
        await to_thread.run_sync(lambda: house.docker.remove_container(theirs, force=True))


async def test_of_two_containers_with_one_owner_the_one_that_is_dialled_stays(house: House) -> None:
    launched = await house.launch("srv_1", role=Role.SERVER)
    labels = (await house.inspect("srv_1"))["Config"]["Labels"]
    copy = await house.create_by_hand(f"copy-{house.token}", labels, start=True)

    assert await house.runtime.inspect("srv_1") == launched
    assert await house.runtime.list_owned() == [launched]
    assert await house.launch("srv_1", role=Role.SERVER) == launched

    everything = await to_thread.run_sync(lambda: house.docker.containers(all=True))
    assert copy not in {each["Id"] for each in everything}
    assert house.listener.heard == []


async def test_a_copy_under_another_instances_label_is_not_touched(house: House) -> None:
    await house.launch("srv_1", role=Role.SERVER)
    labels = (await house.inspect("srv_1"))["Config"]["Labels"] | {"switchyard.instance": f"x-{house.token}"}
    copy = await house.create_by_hand(f"copy-{house.token}", labels)
    try:
        await house.runtime.remove("srv_1")
        await house.runtime.remove("srv_1")
        assert (await to_thread.run_sync(house.docker.inspect_container, copy))["Id"] == copy
    finally:
        await to_thread.run_sync(lambda: house.docker.remove_container(copy, force=True))


async def test_a_container_that_a_dying_router_created_and_did_not_start_is_no_launch(house: House) -> None:
    await house.launch("trn_1")
    labels = (await house.inspect("trn_1"))["Config"]["Labels"]
    await house.runtime.remove("trn_1")
    await house.create_by_hand(house.name_of("trn_1"), labels)
    assert await house.runtime.inspect("trn_1") is None

    assert (await house.launch("trn_1")).running


async def test_a_network_that_is_not_there_is_named_and_nothing_is_left(puppets: Puppets) -> None:
    async with open_house(puppets, trainer_network="no-such-network") as house:
        with pytest.raises(LaunchFailed, match="no-such-network"):
            await house.launch("trn_1")
        label = {"label": f"switchyard.instance={house.instance}"}
        assert await to_thread.run_sync(lambda: house.docker.containers(all=True, filters=label)) == []


async def test_labels_say_whose_a_container_is_and_nothing_restarts_it(house: House) -> None:
    await house.launch("srv_1", role=Role.SERVER)
    found = await house.inspect("srv_1")
    labels, host = found["Config"]["Labels"], found["HostConfig"]
    assert labels["switchyard.owner"] == "srv_1"
    assert labels["switchyard.instance"] == house.instance
    assert labels["switchyard.role"] == "server"
    assert labels["switchyard.name"] == house.name_of("srv_1")
    assert host["RestartPolicy"]["Name"] in ("", "no")
    assert (host["PidsLimit"], host["NetworkMode"]) == (1024, house.puppets.network)


async def test_gpus_that_the_engine_does_not_have_are_named(puppets: Puppets) -> None:
    async with open_house(puppets, gpus=True) as house:
        await house.runtime.refuse_unsupported(Resources(), "all")
        with pytest.raises(LaunchFailed, match="gpu"):
            await house.launch("trn_1", gpus="all")
        assert await house.runtime.list_owned() == []


async def test_a_volume_is_read_only_and_others_than_those_for_data_are_refused(house: House) -> None:
    with pytest.raises(UnsupportedSetting, match=r"volumes\.mlflow"):
        await house.runtime.refuse_unsupported(Resources(), None, {"mlflow": "/data"})
    volume = f"{house.puppets.volume_prefix}{house.token}"
    try:
        await house.launch("trn_1", does="open('/data/x', 'w')", volumes={volume: "/data"})
        await house.listener.wait_for("trn_1")
        assert "Read-only file system" in await house.runtime.logs("trn_1", 10_000)
    finally:
        await house.runtime.remove("trn_1")
        await to_thread.run_sync(house.docker.remove_volume, volume)


async def test_an_engine_that_is_not_there_is_named(puppets: Puppets, tmp_path: Path) -> None:
    runtime = puppets.make_runtime("nobody", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(RuntimeUnavailable, match=str(tmp_path)) as caught:
        await runtime.check()
    assert caught.value.retryable
    with pytest.raises(RuntimeUnavailable):
        await runtime.start()
    await runtime.close()
