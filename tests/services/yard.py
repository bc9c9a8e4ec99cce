"""A real router with its real Caddy, over a real MLflow: what integration tests and benchmarks drive."""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import httpx

from router.runtimes.process import ProcessRuntime
from scripts.service_commands import ROOT
from tests.services.caddy import Caddy
from tests.services.ports import find_free_port
from tests.services.processes import ServiceProcess
from tests.services.reloads import Reloads
from tests.services.waiting import wait_for

SOURCES = ROOT / "tests" / "sources"
WAIT_SECONDS = 60.0
# Reading certificates would cost 20 ms for each call.
PLAIN: dict[str, Any] = {"verify": False, "trust_env": False, "timeout": 60}
PORT_BLOCK = 200  # of server ports for one yard; blocks lie below the kernel's ephemeral range


class Yard:
    """`start` starts router and Caddy; each may be killed and started again on the same files."""

    def __init__(
        self,
        directory: Path,
        mlflow_url: str,
        settings: Mapping[str, str] | None = None,
        *,
        may_crash: bool = False,
    ) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.specs = directory / "specs"
        self.specs.mkdir(parents=True)
        self.mlflow_url = mlflow_url
        self.router_url = f"http://127.0.0.1:{find_free_port()}"
        self.public_url = f"http://127.0.0.1:{find_free_port()}"
        self.admin_socket = directory / "admin.sock"
        self.settings = {
            "ROUTER_PORT": self.router_url.rpartition(":")[2],
            "PROXY_PUBLIC_PORT": self.public_url.rpartition(":")[2],
            "PROXY_IDLE_PORT": str(find_free_port()),
            "MLFLOW_SERVICE_PORT": mlflow_url.rpartition(":")[2],
            "MLFLOW_TRACKING_URI": mlflow_url,
            "PUBLIC_HOST": "127.0.0.1",
            "PROXY_ADMIN_URL": str(self.admin_socket),
            "STATE_PATH": str(self.state),
            "SPECS_PATH": str(self.specs),
            "CHALLENGE_PATH": str(directory / "challenges"),
            "PROJECT_ROOT": str(ROOT),
            "PROCESS_PORTS": choose_ports(),
            "ROLLOUT_BAKE_SEC": "0",
            **(settings or {}),
        }
        self.crash_point = directory / "crash-at"
        self._module = "tests.services.crashing_router" if may_crash else "router"
        self.router = self.make_router()
        self.caddy = Caddy(self.state / "caddy.json", self.admin_socket, directory / "caddy")
        self.reloads = Reloads(self.caddy.log)

    def make_router(self, **settings: str) -> ServiceProcess:
        """One more router on the same files, with some settings of its own."""
        inherited = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "PIP_CERT")
        environment = {name: os.environ[name] for name in inherited if name in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), "CRASH_POINT": str(self.crash_point)}
        environment |= {**self.settings, **settings}
        return ServiceProcess(
            [sys.executable, "-m", self._module], environment, self.directory / "router.log"
        )

    def start(self) -> None:
        """The router first: it writes the config that Caddy starts from."""
        self.start_router()
        self.caddy.start()
        self.wait_for(lambda: httpx.get(f"{self.router_url}/readyz", **PLAIN).status_code == 200, "readiness")

    def start_router(self) -> None:
        self.router.start(self._leads)

    def crash_router_at(self, point: str) -> None:
        """Have the router, which must be one that `may_crash`, die there: see `crashing_router`."""
        new = self.crash_point.with_suffix(".new")
        new.write_text(point)
        new.rename(self.crash_point)

    def wait_for_crash(self) -> None:
        assert self.router.wait(WAIT_SECONDS) == -signal.SIGKILL
        self.crash_point.unlink()

    def _leads(self) -> bool:
        try:
            return httpx.get(f"{self.router_url}/status", **PLAIN).status_code == 200
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.router.stop()
        self.caddy.stop()
        anyio.run(self._end_workloads)

    async def _end_workloads(self) -> None:
        runtime = ProcessRuntime(
            state=self.state / "process",
            project_root=ROOT,
            ports=range(0),
            environment={},
            build_environment={},
        )
        await runtime.start()
        for workload in await runtime.list_owned():
            await runtime.remove(workload.owner)
        await runtime.close()

    # --- what a test asks -------------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, **options: Any) -> httpx.Response:
        """The first training of a source also installs its packages."""
        patient = PLAIN | {"timeout": 900}
        return httpx.request(method, f"{self.router_url}{path}", json=body, **patient, **options)

    def post(self, path: str, body: object = None, status: int = 200) -> dict[str, Any]:
        """Fails unless the answer has this status."""
        answer = self.call("POST", path, body if body is not None else {})
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def get(self, path: str) -> dict[str, Any]:
        answer = self.call("GET", path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json()
        return found

    def predict(self, body: object = None, endpoint: str | None = None, **options: Any) -> httpx.Response:
        """Sent again only if a reload of Caddy has dropped it."""
        sent = body if body is not None else {"inputs": [[1.0]]}
        path = "/invocations" if endpoint is None else f"/endpoints/{endpoint}/invocations"
        for attempt in self.reloads.attempts():
            with attempt:
                return httpx.post(f"{self.public_url}{path}", json=sent, **(PLAIN | options))
        raise AssertionError("attempts end by an answer or an error")

    def traffic(self, endpoint: str = "default") -> dict[str, Any]:
        """What the slot directory says, whoever runs."""
        found: dict[str, Any] = json.loads(
            (self.state / "slots" / endpoint / "current" / "traffic.json").read_text()
        )
        return found

    def alias(self, name: str, alias: str = "deployed") -> int | None:
        url = f"{self.mlflow_url}/api/2.0/mlflow/registered-models/alias"
        answer = httpx.get(url, params={"name": name, "alias": alias}, **PLAIN)
        return int(answer.json()["model_version"]["version"]) if answer.status_code == 200 else None

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        wait_for(holds, what, seconds, self.router.log_tail)


def choose_ports() -> str:
    """A block of server ports that no other xdist worker of this run uses, nor, most likely, another run."""
    run = crc32(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())).encode())
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + (run + worker) % 50 * PORT_BLOCK
    return f"{first}-{first + PORT_BLOCK - 1}"


@contextmanager
def run_yard(
    mlflow_url: str, settings: Mapping[str, str] | None = None, *, may_crash: bool = False
) -> Iterator[Yard]:
    # Unix sockets and Caddy want short paths, which pytest's are not.
    directory = Path(tempfile.mkdtemp(prefix="sw-"))
    yard = Yard(directory, mlflow_url, settings, may_crash=may_crash)
    try:
        yield yard
    finally:
        yard.close()
        shutil.rmtree(directory)
