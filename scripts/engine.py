"""The Docker engine of this machine: found, or installed and started.

One for the machine, not one for each checkout: a dockerd that starts flushes the packet filter's rules of one
that runs already, and with them the isolation of its networks.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scripts.service_commands import service_environment

PID_FILE = Path("/run/switchyard-dockerd.pid")
OURS = f"--pidfile={PID_FILE}"  # by which a dockerd that we started is told from any other
LOG = Path("/var/log/switchyard-dockerd.log")
START_SECONDS = 90
STOP_SECONDS = 60
POLL_SECONDS = 0.1
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # which the PATH of a user who became root may lack
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


class EngineError(Exception):
    """Its text tells a person what failed and what to do."""


@dataclass(frozen=True)
class Client:
    """Docker's command line, found by scripts/lib/docker.sh, on one engine."""

    program: str
    address: str

    @classmethod
    def from_environment(cls) -> "Client":
        """On DOCKER_HOST, else on what the client's own configuration names."""
        program = os.environ["DOCKER"]
        command = [program, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode != 0:
            raise EngineError(f"docker names no engine: {found.stderr.strip()}")
        return cls(program, found.stdout.strip())

    def run(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        if done.returncode != 0:
            raise EngineError(f"docker {' '.join(arguments)} failed: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.program, "--host", self.address, *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def refusal(self) -> str | None:
        """None: the engine answers."""
        done = self.attempt("version", "--format", "{{.Server.APIVersion}}")
        return done.stderr.strip() if done.returncode != 0 else None


def say(line: str) -> None:
    print(f"engine: {line}", file=sys.stderr, flush=True)


def ensure_engine(client: Client) -> None:
    refusal = client.refusal()
    if refusal is None:
        return
    if os.environ.get("DOCKER_HOST"):
        raise EngineError(f"no engine answers at DOCKER_HOST={client.address}: {refusal}")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise EngineError(
            f"no Docker engine answers at {client.address}: start yours or name another in DOCKER_HOST; on"
            f" Debian or Ubuntu `sudo scripts/get-engine` installs and starts one ({refusal})"
        )
    if find_program("dockerd") is None:
        install_package("docker.io")
    start_engine(client)


def start_engine(client: Client) -> None:
    if Path("/run/systemd/system").is_dir():
        say("starting the system's Docker engine: systemctl start docker")
        run_as_root("systemctl", "start", "docker")
        return
    say(f"starting dockerd (log: {LOG}; to end it: scripts/get-engine --stop)")
    dockerd = find_program("dockerd") or "dockerd"
    proxies = {name: os.environ[name] for name in PROXY_VARIABLES if name in os.environ}
    environment = {**service_environment(), **proxies}
    environment["PATH"] += f":{SYSTEM_PATH}"
    with LOG.open("ab") as log:
        child = subprocess.Popen(
            [dockerd, OURS],
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while (refusal := client.refusal()) is not None:
        if child.poll() is not None or time.monotonic() > deadline:
            tail = LOG.read_text(errors="replace")[-2000:]
            raise EngineError(f"dockerd does not run ({refusal}). The end of {LOG}:\n{tail}")
        time.sleep(POLL_SECONDS)


def stop_engine(client: Client) -> None:
    """Only one that `start_engine` started, and that nobody uses."""
    pid = find_own_dockerd()
    if pid is None:
        say("no dockerd runs that scripts/get-engine started")
        return
    running = client.run("ps", "--format", "{{.Names}}").split()
    if running:
        raise EngineError(f"the engine goes on, for containers run on it: {', '.join(running)}")
    process = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    ended, _, _ = select.select([process], [], [], STOP_SECONDS)
    os.close(process)
    if not ended:
        raise EngineError(f"dockerd (process {pid}) was told to stop and has not, after {STOP_SECONDS} s")
    say("dockerd stopped; its images and volumes stay in /var/lib/docker")


def find_own_dockerd() -> int | None:
    try:
        pid = int(PID_FILE.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return None
    return pid if OURS in arguments else None


def find_program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:{SYSTEM_PATH}")


def install_package(name: str) -> None:
    say(f"installing the system package {name}")
    run_as_root("apt-get", "update", "-qq")
    run_as_root("apt-get", "install", "-qq", "-y", "--no-install-recommends", name)


def run_as_root(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
