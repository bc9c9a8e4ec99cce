"""A real Docker registry on a loopback port, where engines ask for no TLS, and images to pull from it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import httpx
from docker import APIClient
from docker.errors import NotFound

from scripts.service_commands import ROOT, service_environment
from tests.services.marks import new_mark
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess

UNPACKED = ROOT / ".local" / "registry" / "usr" / "bin" / "docker-registry"  # by scripts/get-registry
CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/images}}}}
http: {{addr: "{host}"}}
"""
# The base is there already, a layer of noise is not: it does not shrink on its way.
DOCKERFILE = """
FROM caddy:2.11.4
LABEL mark={mark}
RUN head -c 4000000 /dev/urandom > /noise
CMD ["sleep", "1000"]
"""


class Registry:
    def __init__(self, docker_host: str, directory: Path) -> None:
        self.host = f"127.0.0.1:{find_free_port()}"  # no other run of tests has images under this name
        self._mark = new_mark()
        self.repository = f"{self.host}/{self._mark}"  # what a killed run leaves under it is swept
        self._engine = docker_host
        config = directory / "registry.yaml"
        config.write_text(CONFIG.format(directory=directory, host=self.host))
        program = shutil.which("docker-registry") or str(UNPACKED)
        self.process = ServiceProcess(
            [program, "serve", str(config)], service_environment(), directory / "registry.log"
        )

    def start(self) -> None:
        if not UNPACKED.exists() and shutil.which("docker-registry") is None:
            raise RuntimeError("these tests need a Docker registry: scripts/get-registry")
        self.process.start(self._answers)

    def add(self, reference: str) -> str:
        """An image of its own under this name, here and nowhere else. Its digest."""
        with APIClient(self._engine, version="auto") as docker:
            dockerfile = BytesIO(DOCKERFILE.format(mark=self._mark).encode())
            built = list(docker.build(fileobj=dockerfile, tag=reference, nocache=True, rm=True, decode=True))
            assert "error" not in built[-1], built[-1]
            pushed = list(docker.push(reference, stream=True, decode=True))
            assert "error" not in pushed[-1], pushed[-1]
            docker.remove_image(reference)
        return next(str(line["aux"]["Digest"]) for line in pushed if "aux" in line)

    def remove_pulled(self) -> None:
        """From the engine, whatever came from here, under all its names."""
        with APIClient(self._engine, version="auto") as docker:
            for image in docker.images():
                for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                    if name.startswith(f"{self.host}/"):
                        with suppress(NotFound):  # gone with its last tag
                            docker.remove_image(name)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.host}/v2/").is_success
        except httpx.TransportError:
            return False


@contextmanager
def run_registry(docker_host: str, directory: Path) -> Iterator[Registry]:
    registry = Registry(docker_host, directory)
    registry.start()
    try:
        yield registry
    finally:
        registry.process.stop()
        registry.remove_pulled()
