"""Images of a registry through the socket proxy, of which the operator has allowed one tag and no more."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from anyio import to_thread
from docker import APIClient

from router.core.errors import ImageNotFound
from tests.integration.docker.runtime_house import open_house, proxy_settings
from tests.services.docker_puppets import Puppets
from tests.services.marks import new_mark
from tests.services.registry import Registry, run_registry
from tests.services.socket_proxy import SocketProxy, run_socket_proxy

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}
LABELS = {"switchyard.owner": "srv_1", "switchyard.role": "server"}


@dataclass(frozen=True)
class Gate:
    """Of the repository `name` in `registry`, `proxy` allows the tag `1` to `instance`."""

    registry: Registry
    name: str
    proxy: SocketProxy
    instance: str
    engine: APIClient  # with nothing in between

    def create(self, image: str) -> tuple[int, str]:
        body = json.dumps({"Image": image, "Labels": LABELS}).encode()
        target = f"/v1.41/containers/create?name={self.instance}-00000000"
        status, answer = self.proxy.ask("POST", target, body, JSON)
        return status, answer.decode()

    def pull(self, version: str) -> int:
        return self.proxy.ask("POST", f"/v1.41/images/create?fromImage={self.name}&tag={version}")[0]

    def inspect(self, image: str) -> int:
        return self.proxy.ask("GET", f"/v1.41/images/{image}/json")[0]


@pytest.fixture(scope="module")
def registry(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with run_registry(docker_host, tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def gate(puppets: Puppets, registry: Registry, tmp_path: Path) -> Iterator[Gate]:
    instance = f"test-{new_mark()}"
    name = f"{registry.host}/{instance}/server"
    settings = proxy_settings(puppets, instance, f"{name}:1")
    socket = Path(puppets.docker_host.removeprefix("unix://"))
    with run_socket_proxy(socket, tmp_path / "socket-proxy.log", **settings) as proxy:
        try:
            yield Gate(registry, name, proxy, instance, puppets.docker)
        finally:
            puppets.remove_containers(instance)


async def test_what_an_allowed_tag_names_is_pulled_pinned_and_run(gate: Gate, puppets: Puppets) -> None:
    digest = await to_thread.run_sync(gate.registry.add, f"{gate.name}:1")
    told: list[str] = []
    async with open_house(puppets, gate.proxy.url, gate.instance) as house:
        image = await house.runtime.resolve_image(f"{gate.name}:1", None, told.append)
        await house.runtime.launch(house.workload("trn_1", image))

        pulled = await to_thread.run_sync(gate.engine.inspect_image, f"{gate.name}@{digest}")
        assert (image.digest, (await house.inspect("trn_1"))["Image"]) == (digest, pulled["Id"])
        assert told[0] == f"the image {gate.name}:1 is being pulled"


async def test_a_tag_that_is_not_allowed_is_not_pulled(gate: Gate, puppets: Puppets) -> None:
    await to_thread.run_sync(gate.registry.add, f"{gate.name}:2")
    async with open_house(puppets, gate.proxy.url, gate.instance) as house:
        with pytest.raises(ImageNotFound, match="ALLOWED_IMAGES"):
            await house.runtime.resolve_image(f"{gate.name}:2")


def test_another_digest_of_the_same_repository_is_refused(gate: Gate) -> None:
    right, wrong = gate.registry.add(f"{gate.name}:1"), gate.registry.add(f"{gate.name}:2")
    assert gate.pull("1") == 200
    gate.engine.pull(gate.name, tag="2")  # somebody else has it on this host

    for image in (f"{gate.name}@{wrong}", f"{gate.name}:1@{wrong}", f"{gate.name}:2", wrong):
        status, answer = gate.create(image)
        assert status in (403, 404), answer
        assert gate.inspect(image) in (403, 404)
    assert gate.pull(wrong) == gate.pull(right) == 403
    assert gate.inspect(f"{gate.name}@{right}") == 200


def test_a_digest_that_its_tag_has_left_is_refused_unless_it_runs(gate: Gate) -> None:
    old = gate.registry.add(f"{gate.name}:1")
    assert gate.pull("1") == 200
    status, made = gate.create(f"{gate.name}@{old}")
    assert status == 201, made
    gate.registry.add(f"{gate.name}:1")
    assert gate.pull("1") == 200

    assert gate.inspect(f"{gate.name}@{old}") == 200  # a server of it that has died is replaced
    gate.engine.remove_container(json.loads(made)["Id"])
    assert gate.inspect(f"{gate.name}@{old}") == 403
    assert gate.create(f"{gate.name}@{old}")[0] == 403


def test_a_digest_of_another_repository_is_not_even_looked_for(gate: Gate) -> None:
    digest = gate.registry.add(f"{gate.registry.repository}/other:1")
    gate.engine.pull(f"{gate.registry.repository}/other", tag="1")
    assert gate.create(f"{gate.registry.repository}/other@{digest}")[0] == 403
    assert gate.create(f"{gate.registry.repository}/other@sha256:{'0' * 64}")[0] == 403
