"""Engines that a test may stop, kill and start again, while the machine's goes on for everybody else."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

import psutil

from scripts.engine import find_program
from scripts.service_commands import service_environment
from tests.services.caddy import short_directory
from tests.services.engine import run_docker
from tests.services.engine_line import EngineLine
from tests.services.processes import ServiceProcess


class PrivateEngine:
    """A dockerd of one test's own; stopped or killed and started again it keeps its data and its socket.

    It leaves the packet filter alone, whose rules belong to the machine's engine. So its containers and the
    host reach one another; containers neither reach the outside nor, on some machines, one another.
    """

    def __init__(self, dockerd: str, directory: Path, *further_options: str) -> None:
        self.directory = directory  # on a short path, since sockets are in it
        self.address = f"unix://{directory}/docker.sock"
        name = secrets.token_hex(4)
        self._bridge = f"sw-{name}"
        network = choose_network()
        self.gateway = str(network[1])  # the host, as containers on the default bridge see it
        _run_ip("link", "add", self._bridge, "type", "bridge")
        _run_ip("address", "add", f"{self.gateway}/24", "dev", self._bridge)
        _run_ip("link", "set", self._bridge, "up")
        # No address pool of its own: with one, dockerd removes the machine's docker0 when it starts again.
        options = [
            f"--host={self.address}",
            f"--data-root={directory}/data",
            f"--exec-root={directory}/exec",
            f"--pidfile={directory}/pid",
            f"--bridge={self._bridge}",
            "--iptables=false",
            # Where the system runs a containerd, dockerd shares it: names then keep the engines apart.
            f"--containerd-namespace=switchyard-{name}",
            f"--containerd-plugins-namespace=switchyard-plugins-{name}",
            *further_options,
        ]
        environment = service_environment()
        environment["PATH"] += ":/usr/sbin:/sbin"
        self.process = ServiceProcess([dockerd, *options], environment, directory / "dockerd.log")

    def start(self) -> None:
        self.process.start(self._answers)

    def stop(self) -> None:
        self.process.stop(grace_seconds=60)

    def kill(self) -> None:
        """As a crash would: containers go on until an engine that does not know them alive starts."""
        record = self.directory / "exec" / "containerd" / "containerd.pid"
        containerd = psutil.Process(int(record.read_text())) if record.exists() else None
        self.process.kill()
        if containerd is not None:
            # It ends with its dockerd, but not at the same moment, and the next dockerd would count on it.
            containerd.wait(timeout=60)

    def docker(self, *arguments: str) -> str:
        return run_docker(self.address, *arguments)

    def take_image(self, image: str, source: str) -> None:
        """From the engine at `source`, as a registry would give it."""
        archive = self.directory / "image.tar"
        run_docker(source, "save", "--output", str(archive), image)
        self.docker("load", "--quiet", "--input", str(archive))
        archive.unlink()

    def delete(self) -> None:
        """With all that tests have left in it, for bridges and mounts would outlive it."""
        if not self.process.running:
            self.start()
        for kind, listing in (
            ("container", ("ps", "-aq")),
            ("network", ("network", "ls", "-qf", "type=custom")),
        ):
            if found := self.docker(*listing).split():
                self.docker(kind, "rm", "--force", *found)
        self.stop()
        # dockerd mounts its data onto itself and, once killed, no longer knows that it did.
        mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in (each for each in mounts if each.is_relative_to(self.directory)):
            subprocess.run(["umount", mount], check=True)
        _run_ip("link", "delete", self._bridge)

    def _answers(self) -> bool:
        try:
            self.docker("version")
        except RuntimeError:
            return False
        return True


@contextmanager
def run_restartable_engine(docker_host: str, *options: str) -> Iterator[PrivateEngine | EngineLine]:
    """A private one where this machine allows it, else a line to the machine's that can be cut.

    `options` are further ones of the private dockerd, such as `--live-restore`.
    """
    dockerd = find_program("dockerd")
    engine: PrivateEngine | EngineLine
    with short_directory() as directory:
        if dockerd is None or shutil.which("ip") is None or os.geteuid() != 0:
            engine = EngineLine(directory, docker_host)
        else:
            engine = PrivateEngine(dockerd, directory, *options)
        try:
            engine.start()
            yield engine
        finally:
            engine.delete()


def choose_network() -> IPv4Network:
    """A private /16 that no route of this machine leads to."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    routes = [
        IPv4Network((bytes.fromhex(row[1])[::-1], _mask_length(row[7]))) for row in rows if row[1] != "0" * 8
    ]
    networks = IPv4Network("10.0.0.0/8").subnets(new_prefix=16)
    return secrets.choice([each for each in networks if not any(each.overlaps(route) for route in routes)])


def _mask_length(mask: str) -> int:
    return int(mask, 16).bit_count()


def _run_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
