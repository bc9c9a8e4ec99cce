"""The allowed life of a container, with Docker's own SDK pointed at the proxy, before a real engine."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import docker
import pytest
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from socket_proxy.rebuild import CACHE_PATH
from tests.integration.docker.installation import CACHE_USER, Installation

DEADLINE = 60


@pytest.fixture
def stranger(installation: Installation) -> Iterator[Container]:
    """A running container of somebody else on the same engine."""
    container = installation.engine.containers.run(
        installation.image, name=f"{installation.id}-stranger", detach=True, environment={"SECRET": "theirs"}
    )
    yield container
    container.remove(force=True)


def test_a_container_is_created_started_followed_and_removed(installation: Installation) -> None:
    client = installation.client
    name = installation.new_name()

    container = client.containers.create(
        installation.image,
        name=name,
        labels={"switchyard.owner": "trn_1", "switchyard.role": "trainer"},
        environment={"LINES": "3", "EXIT_CODE": "7"},
        network=installation.trainer_network,
        mem_limit="64m",
        nano_cpus=500_000_000,
        pids_limit=50,
        log_config=LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
        mounts=[Mount("/data", f"{installation.volume_prefix}churn", read_only=True)],
        init=True,
    )
    container.start()

    assert container.wait(timeout=DEADLINE)["StatusCode"] == 7
    assert list(container.logs(stream=True, follow=True)) == [b"line 0\n", b"line 1\n", b"line 2\n"]
    container.remove(v=True)
    assert name not in installation.names()


def test_what_docker_gets_is_confined_whatever_was_asked(installation: Installation) -> None:
    container = installation.launch()
    host = installation.engine.containers.get(str(container.id)).attrs["HostConfig"]

    assert not host["Privileged"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Memory"], host["MemorySwap"]) == (64 * 1024**2, 64 * 1024**2)
    assert host["PidsLimit"] == 1024
    assert host["NetworkMode"] == installation.server_network
    assert host["IpcMode"] == host["CgroupnsMode"] == "private"
    assert host["LogConfig"]["Config"] == {"max-size": str(10 * 1024**2), "max-file": "3"}
    container.remove(force=True)


def test_servers_write_to_the_cache_that_they_share_as_the_images_own_user(
    installation: Installation,
) -> None:
    name = f"{installation.cache_prefix}0123456789abcdef"
    mount = {"Type": "volume", "Source": name, "Target": CACHE_PATH, "ReadOnly": False}
    creation = installation.creation()
    creation["HostConfig"] |= {"Mounts": [mount]}
    servers = []
    for _ in range(2):
        status, answer = installation.create(creation, installation.new_name())
        assert status == 201, answer
        servers.append(installation.engine.containers.get(answer["Id"]))
        servers[-1].start()

    first, second = servers
    assert first.exec_run(["touch", f"{CACHE_PATH}/model"], user=CACHE_USER).exit_code == 0
    assert second.exec_run(["ls", CACHE_PATH], user=CACHE_USER).output == b"model\n"
    labels = installation.engine.volumes.get(name).attrs["Labels"]
    assert labels == installation.label
    for server in servers:
        server.remove(force=True)


def test_events_of_ours_come_as_they_happen(installation: Installation, stranger: Container) -> None:
    events = installation.client.events(decode=True)
    container = installation.launch(EXIT_CODE="3")
    stranger.restart(timeout=0)

    seen: list[tuple[str, str]] = []
    while not seen or seen[-1][0] != "die":
        event = next(events)
        seen.append((event["Action"], event["Actor"]["ID"]))
    events.close()

    assert ("start", container.id) in seen
    assert {owner for _, owner in seen} == {container.id}
    container.remove()


def test_stop_kill_and_stats(installation: Installation) -> None:
    container = installation.launch()
    stats: Any = container.stats(stream=False)
    assert stats["memory_stats"]["limit"] == 64 * 1024**2
    logs = container.logs(stream=True, follow=True)
    assert next(logs) == b"waiting\n"
    container.kill("SIGUSR1")
    assert next(logs) == b"poked\n"
    container.stop(timeout=DEADLINE)
    assert list(logs) == []
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 0)

    container.start()
    container.start()  # Docker says that nothing has changed
    container.kill()
    assert container.wait(timeout=DEADLINE)["StatusCode"] == 137
    container.remove()


def test_only_containers_of_ours_are_listed(installation: Installation, stranger: Container) -> None:
    ours = installation.launch()

    assert [found.id for found in installation.client.containers.list(all=True)] == [ours.id]
    narrowed: Any = {"label": "switchyard.owner=srv_2"}
    assert installation.client.containers.list(all=True, filters=narrowed) == []
    ours.remove(force=True)


def test_an_image_is_found_by_name_and_runs_by_its_id(installation: Installation) -> None:
    image = installation.client.images.get(installation.image)
    creation = installation.creation() | {"Image": image.id}

    status, answer = installation.create(creation, installation.new_name())

    assert status == 201
    installation.client.containers.get(answer["Id"]).remove()


def test_an_image_runs_by_its_id_after_its_tag_has_moved_on_if_it_runs_already(
    installation: Installation,
) -> None:
    running = installation.launch()
    image = installation.engine.images.get(installation.image)
    image.tag("elsewhere", f"{installation.id}")
    try:
        installation.engine.images.remove(installation.image, noprune=True)
        creation = installation.creation() | {"Image": image.id}
        status, answer = installation.create(creation, installation.new_name())
        assert status == 201
        installation.client.containers.get(answer["Id"]).remove()

        running.remove(force=True)
        status, answer = installation.create(creation, installation.new_name())
        assert (status, "allow this image to be used" in answer["message"]) == (403, True)
    finally:
        image.tag(installation.image)
        installation.engine.images.remove(f"elsewhere:{installation.id}", noprune=True)


def test_a_pull_is_of_one_tag_with_the_credentials_for_it_and_says_what_docker_says(
    installation: Installation,
) -> None:
    name = f"{installation.id}/missing"
    target = f"/images/create?fromImage={quote(name, safe='')}"
    status, body = installation.proxy.ask("POST", target, headers={"X-Registry-Auth": "c2VjcmV0"})

    assert (status in (404, 500), bool(json.loads(body)["message"])) == (True, True)
    sent = installation.relay.connection_of(f"POST {target}&tag=latest").sent
    assert b"\r\nx-registry-auth: c2VjcmV0\r\n" in sent
    assert "c2VjcmV0" not in installation.proxy.log.read_text()


def test_what_is_missing_is_404_and_a_name_that_is_taken_409(installation: Installation) -> None:
    with pytest.raises(docker.errors.NotFound):
        installation.client.containers.get(installation.new_name())
    with pytest.raises(docker.errors.ImageNotFound):
        installation.client.images.get(f"{installation.id}/missing")
    taken = installation.launch()
    status, answer = installation.create(installation.creation(), str(taken.name))
    assert (status, "already in use" in answer["message"]) == (409, True)
    taken.remove(force=True)
