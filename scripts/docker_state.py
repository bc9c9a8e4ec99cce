"""The state of the stack on Docker: in volumes, which only containers reach. Only the standard library."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from scripts import archive
from scripts.archive import LAYOUTS
from scripts.compose_config import DOCKER, published_address, read_config
from scripts.service_commands import ROOT
from scripts.stack_error import StackError

BASE = "/stack"  # where the container that packs and unpacks has the volumes


class DockerState:
    runtime = "docker"
    start_command = "make up"
    stop_command = "RUNTIME=docker make down"

    def __init__(self) -> None:
        config = read_config()
        self._project: str = config["name"]
        settings = config["services"]["router"]["environment"]
        self._volumes = {name: config["volumes"][name]["name"] for name in LAYOUTS[self.runtime].roots}
        self.store_url: str = settings["STORE_URL"]
        self.token: str = settings["SWITCHYARD_TOKEN"]
        self.router_address = published_address(config["services"]["router"])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Docker Compose has no lock that one could take."""
        yield

    def missing(self) -> str | None:
        """Why there is nothing to be packed."""
        for volume in self._volumes.values():
            if self._attempt("volume", "inspect", volume).returncode != 0:
                return f"there is no volume {volume}"
        return None

    def running(self) -> list[str]:
        """Services, which only Compose gives this hash (its project's name is in images, too); workloads."""
        services = (f"com.docker.compose.project={self._project}", "com.docker.compose.config-hash")
        workloads = (f"switchyard.instance={self._project}",)
        found: list[str] = []
        for labels in (services, workloads):
            filters = [f"--filter=label={label}" for label in labels]
            found += self._run("ps", "--format={{.Names}}", *filters).split()
        return found

    def pack(self, output: IO[bytes]) -> None:
        self._call(self._helper("pack"), output=output)

    def find_content(self) -> str | None:
        return self._run(*self._helper("look")).strip() or None

    def unpack(self, archive: IO[bytes]) -> None:
        self._call(self._helper("unpack"), source=archive)

    def lacks(self, serving: dict[str, Any]) -> str | None:
        """By its id, if it was built here; by its digest in a registry it can be pulled."""
        digest, name = serving["serve_digest"], serving["serve_image"]
        repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        names = digest, f"{repository}@{digest}"
        if any(self._attempt("image", "inspect", each).returncode == 0 for each in names):
            return None
        return f"the image {digest} ({name}) is not on this host: unless its registry gives it, carry it over"

    def stop(self) -> None:
        self._script("down")

    def prepare(self) -> None:
        """Images and volumes, and nothing that runs."""
        self._script("up", "--create")

    def start(self) -> None:
        self._script("up")

    def _helper(self, verb: str) -> Sequence[str]:
        """The arguments of a container with this repository's `archive` and Python's standard library."""
        mounts = [f"--volume={volume}:{BASE}/{name}" for name, volume in self._volumes.items()]
        image = f"{self._project}/router"
        confined = ("--rm", "--interactive", "--network=none", "--user=0:0", "--entrypoint=python")
        return (
            "run", *confined, *mounts, image,
            "-c", Path(archive.__file__).read_text(), verb, self.runtime, BASE,
        )  # fmt: skip

    def _run(self, *arguments: str) -> str:
        done = self._attempt(*arguments)
        if done.returncode != 0:
            raise StackError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    @staticmethod
    def _attempt(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([DOCKER, *arguments], capture_output=True, text=True)

    @staticmethod
    def _call(
        arguments: Sequence[str], source: IO[bytes] | None = None, output: IO[bytes] | None = None
    ) -> None:
        given = source if source is not None else subprocess.DEVNULL
        done = subprocess.run([DOCKER, *arguments], stdin=given, stdout=output, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise StackError(done.stderr.decode(errors="replace").strip())

    @staticmethod
    def _script(name: str, *arguments: str) -> None:
        command = [str(ROOT / "scripts" / name), *arguments]
        done = subprocess.run(command, env={**os.environ, "RUNTIME": "docker"})
        if done.returncode != 0:
            raise StackError(f"scripts/{name} failed; see above")
