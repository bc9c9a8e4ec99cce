"""Images as small as can be for tests of the Docker runtime, and the labels and networks that tell one run of
tests from all others on the same engine."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from docker import APIClient

from router.runtimes.docker import DockerRuntime
from router.runtimes.docker_create import Placement
from tests.services.engine import BASE_IMAGE
from tests.services.marks import new_mark

ORDERS, READY = "/orders", "/tmp/ready"
PUPPET = f"""
import os, signal, sys
if "SERVE_MODEL_URI" in os.environ:
    import serve
if os.environ.get("KIND") == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.environ.get("SAYS", ""), flush=True)
exec(os.environ.get("DOES", ""))
text = ""
while not text:
    with open("{ORDERS}") as orders:
        text = orders.read()
verb, number = text.split()
if verb == "exit":
    sys.exit(int(number))
os.kill(os.getpid(), int(number))
"""
SERVE = f"""
import http.server, os
class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if os.path.exists("{READY}") else 503, b"{{}}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, b'{{"predictions": [1.0]}}')
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", int(os.environ["SERVE_PORT"])), Server).serve_forever()
"""
DOCKERFILE = f"""
FROM {BASE_IMAGE}
RUN mkfifo {ORDERS}
COPY puppet.py serve.py /
CMD ["python", "/puppet.py"]
ARG TOKEN
ARG MARK
LABEL test=$TOKEN mark=$MARK
"""
MISSING = "127.0.0.1:1/missing"  # a registry that refuses every connection


@dataclass(frozen=True)
class Puppets:
    """One image, under a name that nobody else has, and one network."""

    docker_host: str
    docker: APIClient
    token: str

    @property
    def image(self) -> str:
        return f"switchyard-test-{self.token}:latest"

    @property
    def network(self) -> str:
        return f"switchyard-test-{self.token}"

    @property
    def volume_prefix(self) -> str:
        return f"switchyard-test-{self.token}-"

    def build(self, tag: str, mark: str = "first") -> str:
        """Its id. Another mark makes another image, and each run of tests has its own."""
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name, text in (("Dockerfile", DOCKERFILE), ("puppet.py", PUPPET), ("serve.py", SERVE)):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
        for _ in self.docker.build(
            fileobj=io.BytesIO(context.getvalue()),
            custom_context=True,
            tag=tag,
            rm=True,
            decode=True,
            buildargs={"TOKEN": self.token, "MARK": mark},
        ):
            pass
        return str(self.docker.inspect_image(tag)["Id"])

    def make_runtime(self, instance: str, address: str | None = None, **fields: Any) -> DockerRuntime:
        placement = Placement(
            instance=instance,
            trainer_network=self.network,
            server_network=self.network,
            volume_prefix=self.volume_prefix,
        )
        placement = replace(placement, **fields)
        return DockerRuntime(address=address or self.docker_host, placement=placement, pull_seconds=60)

    def run_inside(self, container: str, script: str) -> None:
        """A shell's line; returns when it is done."""
        made = self.docker.exec_create(container, ["sh", "-c", script])
        self.docker.exec_start(made["Id"])
        assert self.docker.exec_inspect(made["Id"])["ExitCode"] == 0

    def make_ready(self, container: str) -> None:
        """Opening a pipe's writing end waits for its reader."""
        self.run_inside(container, f"true > {ORDERS}")

    def let_serve(self, container: str) -> None:
        """One that the engine has launched as a server; until then it is not ready."""
        self.run_inside(container, f"touch {READY}")

    def order(self, container: str, text: str) -> None:
        """What it is ordered may end the container, and the shell with it."""
        made = self.docker.exec_create(container, ["sh", "-c", f"echo {text} > {ORDERS}"])
        self.docker.exec_start(made["Id"])

    def remove_containers(self, instance: str) -> None:
        label = {"label": f"switchyard.instance={instance}"}
        for each in self.docker.containers(all=True, filters=label):
            self.docker.remove_container(each["Id"], force=True, v=True)


@contextmanager
def open_puppets(docker_host: str) -> Iterator[Puppets]:
    docker = APIClient(docker_host, version="auto")
    puppets = Puppets(docker_host, docker, new_mark())
    docker.create_network(puppets.network)
    try:
        puppets.build(puppets.image)
        yield puppets
    finally:
        for image in docker.images(filters={"label": f"test={puppets.token}"}):
            docker.remove_image(image["Id"], force=True)
        docker.remove_network(puppets.network)
        docker.close()
