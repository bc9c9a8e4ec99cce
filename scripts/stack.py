"""The demo's stack on one machine: MLflow, Caddy and the router, started once and found again later."""

import fcntl
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from router.settings import InvalidSettings, Settings
from scripts.background import find_process, fingerprint, read_record, start_process, stop_process
from scripts.service_commands import (
    ROOT,
    caddy_command,
    caddy_environment,
    mlflow_command,
    mlflow_environment,
)
from scripts.stack_error import StackError

START_SECONDS = 120  # MLflow imports and makes its database; a busy machine takes its time
STOP_SECONDS = 20
POLL_SECONDS = 0.1
LOCK = "lock"
DEFAULT_HOME = ROOT / ".switchyard"


@dataclass(frozen=True)
class Ports:
    """Each is moved by the environment variable of its name in capitals."""

    router_port: int = 8000
    proxy_public_port: int = 9000
    proxy_idle_port: int = 9001
    mlflow_service_port: int = 9010

    @classmethod
    def from_environment(cls) -> "Ports":
        return cls(**{name: read_port(name.upper(), default) for name, default in vars(cls()).items()})


@dataclass(frozen=True)
class Service:
    name: str
    command: list[str]
    environment: dict[str, str]
    ports: dict[str, int]  # by the setting that moves each
    missing: Callable[[], str | None]  # what it waits for; None: it is ready
    settings: dict[str, str] = field(default_factory=dict)  # of the caller, which only a start applies


class Stack:
    def __init__(self, ports: Ports, home: Path) -> None:
        self.ports = ports
        self.home = home
        moved = "" if home == DEFAULT_HOME else f"SWITCHYARD_HOME={shlex.quote(str(home))} "
        self.stop_command = f"{moved}make down      ({moved}scripts/down --wipe deletes its state too)"
        self._children: list[subprocess.Popen[bytes]] = []
        self.state = home / "state"
        self.caddy_config = self.state / "caddy.json"
        self.admin_socket = self.state / "caddy-admin.sock"
        self.logs = str(home / "logs")
        self.token = os.environ.get("SWITCHYARD_TOKEN", "")
        self.router_url = f"http://127.0.0.1:{ports.router_port}"
        self.public_url = f"http://localhost:{ports.proxy_public_port}"
        self.mlflow_url = f"http://localhost:{ports.mlflow_service_port}"

    @classmethod
    def from_environment(cls) -> "Stack":
        """All that it keeps is in SWITCHYARD_HOME, by default `.switchyard` in the checkout."""
        home = Path(os.environ.get("SWITCHYARD_HOME") or DEFAULT_HOME).expanduser().absolute()
        return cls(Ports.from_environment(), home)

    def log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        return self.home / "run" / f"{name}.json"

    def mlflow(self) -> Service:
        port = self.ports.mlflow_service_port
        hosts = [f"localhost:{port}", f"127.0.0.1:{port}"]
        command = mlflow_command(self.home / "mlflow", "127.0.0.1", port, hosts)
        return Service(
            "mlflow",
            command,
            mlflow_environment(),
            {"MLFLOW_SERVICE_PORT": port},
            lambda: describe_failure(port, "/health"),
        )

    def router(self) -> Service:
        """With the whole environment of whoever calls, which holds the router's other settings."""
        settings = {name.upper(): str(port) for name, port in vars(self.ports).items()}
        settings |= {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.ports.mlflow_service_port}",
            "PROXY_ADMIN_URL": f"unix/{self.admin_socket}",
            "CADDY_CONFIG_PATH": str(self.caddy_config),
            "STATE_PATH": str(self.state),
            "PROJECT_ROOT": str(ROOT),
            "SPECS_PATH": os.environ.get("SPECS_PATH", str(ROOT / "specs")),
            "CHALLENGE_PATH": os.environ.get("CHALLENGE_PATH", str(ROOT / "challenges")),
        }
        return Service(
            "router",
            [str(ROOT / ".venv" / "bin" / "python"), "-m", "router"],
            {**os.environ, **settings},
            {"ROUTER_PORT": self.ports.router_port},
            lambda: describe_failure(self.ports.router_port, "/readyz"),
            {name: os.environ[name] for name in Settings.variables() if os.environ.get(name)},
        )

    def caddy(self) -> Service:
        return Service(
            "caddy",
            caddy_command(self.caddy_config),
            caddy_environment(self.home),
            {
                "PROXY_PUBLIC_PORT": self.ports.proxy_public_port,
                "PROXY_IDLE_PORT": self.ports.proxy_idle_port,
            },
            lambda: describe_silence(self.ports.proxy_public_port),
        )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One who starts or stops it at a time: two would each start what neither has found."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def bring_up(self) -> Iterator[str]:
        with self.turn():
            yield from self.start()

    def check_settings(self) -> None:
        """Before anything starts. Raises StackError, naming each that the router would refuse."""
        try:
            Settings.load(self.router().environment)
        except InvalidSettings as error:
            raise StackError(f"{error.message}\n{error.hint}") from error

    def start(self) -> Iterator[str]:
        """Starts what does not run and returns when all is ready. Yields a line for each thing it does.

        The caller has the turn.
        """
        self.check_settings()
        mlflow, router, caddy = self.mlflow(), self.router(), self.caddy()
        absent = [service for service in (mlflow, router, caddy) if not self.runs(service)]
        for service in absent:
            self.stop(service.name)  # what a killed one has left would keep its port
            refuse_taken_ports(service)
        for service in (mlflow, router):
            if service in absent:
                yield self._start(service)
        if caddy in absent:
            # The router writes the whole config before it asks for Caddy, so a Caddy that starts now, or
            # comes back while the router is down, serves what users had.
            self._wait("router", lambda: describe_absence(self.caddy_config))
            yield self._start(caddy)
        for service in (mlflow, caddy, router):
            self._wait(service.name, service.missing)
        yield f"ready: MLflow {self.mlflow_url}, Caddy {self.public_url}, router {self.router_url}"

    def stop(self, name: str) -> bool:
        return stop_process(self.record(name), STOP_SECONDS)

    def runs(self, service: Service) -> bool:
        record = read_record(self.record(service.name))
        if record is None or find_process(record) is None:
            return False
        if record.ports != service.ports:
            had = " ".join(f"{name}={port}" for name, port in record.ports.items())
            raise StackError(
                f"{service.name} runs already, with {had}. Set that to use it as it is, or: make down"
            )
        told = fingerprint(service.settings)
        changed = sorted(name for name, _ in record.settings.items() ^ told.items())
        if changed:
            raise StackError(
                f"{service.name} runs already, with another {', '.join(dict.fromkeys(changed))}."
                " Set that as before to use it as it is, or let it start anew: make down, then make demo"
            )
        return True

    def _start(self, service: Service) -> str:
        record, log = self.record(service.name), self.log(service.name)
        self._children.append(
            start_process(
                record, log, service.command, service.environment, ROOT, service.ports, service.settings
            )
        )
        where = ", ".join(str(port) for port in service.ports.values())
        return f"starting {service.name} on port {where} (log: {log})"

    def _wait(self, name: str, missing: Callable[[], str | None]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while (what := missing()) is not None:
            if find_process(read_record(self.record(name))) is None:
                raise StackError(f"{name} ended while starting:\n{self._log_tail(name)}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{name} is not ready after {START_SECONDS} s: {what}. To start all anew: make down, then"
                    f" make demo\n{self._log_tail(name)}"
                )
            time.sleep(POLL_SECONDS)

    def _log_tail(self, name: str) -> str:
        text = self.log(name).read_bytes()[-3000:].decode(errors="replace")
        return f"{text}\n(the whole log: {self.log(name)})"


def read_port(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise StackError(f"{name}={text} is not a port; it must be a number from 1 to 65535")
    return int(text)


def describe_absence(file: Path) -> str | None:
    """None: it is there, and not empty."""
    return None if file.exists() and file.stat().st_size else f"{file} is missing or empty"


def refuse_taken_ports(service: Service) -> None:
    for setting, port in service.ports.items():
        if describe_silence(port) is None:
            raise StackError(
                f"port {port}, which {service.name} needs, is taken by another program. Stop that program, or"
                f" move {service.name}: {setting}={port + 100} make demo"
            )


def describe_silence(port: int) -> str | None:
    """None: somebody listens on this port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return None if probe.connect_ex(("127.0.0.1", port)) == 0 else f"nobody listens on port {port}"


def describe_failure(port: int, path: str) -> str | None:
    """None: a GET there answers 200. Asked often while a service starts, so without httpx, whose new client
    costs more than what it asks for."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(500).decode(errors="replace")
    except (OSError, HTTPException) as error:
        return f"port {port} does not answer GET {path} ({type(error).__name__})"
    finally:
        connection.close()
    return None if answer.status == 200 else f"port {port} answers {answer.status} to GET {path}: {text}"
