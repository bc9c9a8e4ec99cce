"""One installation on a real engine: its image and networks, and a socket proxy in front, all of one name."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import docker
from docker.models.containers import Container

from tests.services.caddy import short_directory
from tests.services.engine import BASE_IMAGE
from tests.services.marks import new_mark
from tests.services.recording_relay import RecordingRelay, run_recording_relay
from tests.services.socket_proxy import SocketProxy, run_socket_proxy

PUPPET = Path(__file__).with_name("puppet.py")
CACHE_USER = "10003"
DOCKERFILE = f"""FROM {BASE_IMAGE}
RUN install -d -o {CACHE_USER} -m 700 /var/cache/switchyard
COPY puppet.py /
CMD ["python3", "/puppet.py"]
"""
JSON = {"Content-Type": "application/json"}


class Installation:
    def __init__(self, docker_host: str) -> None:
        self.socket = Path(docker_host.removeprefix("unix://"))
        self.engine = docker.DockerClient(docker_host, timeout=120)  # with nothing in between
        self.id = new_mark()
        self.image = f"{self.id}/puppet:latest"
        self.trainer_network = f"{self.id}-trainers"
        self.server_network = f"{self.id}-servers"
        self.volume_prefix = f"{self.id}-data-"
        self.cache_prefix = f"{self.id}-cache-"
        self.relay: RecordingRelay
        self.proxy: SocketProxy
        self.client: docker.DockerClient  # through the proxy

    def settings(self) -> dict[str, str]:
        return {
            "instance": self.id,
            "images": f"{self.id}/*",
            "pulls": f"{self.id}/missing,{self.id}/x",
            "trainer_network": self.trainer_network,
            "server_network": self.server_network,
            "volume_prefix": self.volume_prefix,
            "cache_prefix": self.cache_prefix,
        }

    @property
    def label(self) -> dict[str, str]:
        return {"switchyard.instance": self.id}

    def new_name(self) -> str:
        """In the shape of the router's own, and this installation's."""
        return f"{self.id}-{token_hex(4)}"

    def creation(self) -> dict[str, Any]:
        """What the router sends for a server, at its least."""
        labels = {"switchyard.owner": "srv_1", "switchyard.role": "server"}
        return {"Image": self.image, "Labels": labels, "HostConfig": {"Memory": 64 * 1024**2}}

    def create(self, body: bytes | dict[str, Any], name: str) -> tuple[int, dict[str, Any]]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = self.proxy.ask("POST", f"/v1.41/containers/create?name={name}", content, JSON)
        return status, json.loads(answer)

    def launch(self, **env: str) -> Container:
        """A running container of ours, seen through the proxy."""
        creation = self.creation()
        creation["Env"] = [f"{name}={value}" for name, value in env.items()]
        status, answer = self.create(creation, self.new_name())
        assert status == 201, answer
        container = self.client.containers.get(answer["Id"])
        container.start()
        return container

    def names(self) -> set[str]:
        """All containers of this run, whoever made them, asked without the proxy."""
        found = self.engine.containers.list(all=True, filters={"name": self.id}, ignore_removed=True)
        return {str(container.name) for container in found}

    def remove_all(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"name": self.id}):
            container.remove(force=True, v=True)
        for volume in self.engine.volumes.list(filters={"name": self.id}):
            volume.remove()
        for network in self.engine.networks.list(names=[self.id]):
            network.remove()
        for image in self.engine.images.list(f"{self.id}/*"):
            # By the tag: another worker's image may have the same content, and so the same id.
            for tag in image.tags:
                if tag.startswith(self.id):
                    self.engine.images.remove(tag)


@contextmanager
def open_installation(docker_host: str, folder: Path) -> Iterator[Installation]:
    made = Installation(docker_host)
    with ExitStack() as stack:
        stack.callback(made.engine.close)
        stack.callback(made.remove_all)
        build_puppet(made.engine, made.image)
        for network in (made.trainer_network, made.server_network):
            made.engine.networks.create(network)
        sockets = stack.enter_context(short_directory())
        made.relay = stack.enter_context(run_recording_relay(sockets / "docker.sock", made.socket))
        made.proxy = stack.enter_context(
            run_socket_proxy(made.relay.path, folder / "socket-proxy.log", **made.settings())
        )
        made.client = docker.DockerClient(base_url=made.proxy.url, version="auto", timeout=60)
        stack.callback(made.client.close)
        yield made


def build_puppet(engine: docker.DockerClient, tag: str) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in (("Dockerfile", DOCKERFILE.encode()), (PUPPET.name, PUPPET.read_bytes())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    context.seek(0)
    engine.images.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True)
