"""A project folder with sources made by the test, and the process runtime over it."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from anyio import to_thread

from router.core.specs import Resources
from router.runtimes.base import Role, Runtime, Workload, WorkloadState
from router.runtimes.process import ProcessRuntime
from tests.contract.runtime_stages import LIMIT_SECONDS, Listener
from tests.services.ports import WORKSHOP_PORTS, choose_mine

FOREVER = "import signal\nprint('ready', flush=True)\nwhile True: signal.pause()\n"


class Workshop:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.state = directory / "state"
        self.project.mkdir(exist_ok=True)

    def add_source(self, name: str, script: str, described: str = "") -> Path:
        """A folder whose trainer and server both run `script`."""
        folder = self.project / name
        folder.mkdir(exist_ok=True)
        (folder / "run.py").write_text(script)
        command = '["python", "run.py"]'
        (folder / "source.toml").write_text(f"{described}\ntrain = {command}\nserve = {command}\n")
        return folder

    def add_command(self, name: str, *command: str, files: Mapping[str, str] | None = None) -> str:
        """A folder whose trainer and server are this command. Returns its name."""
        folder = self.project / name
        folder.mkdir(exist_ok=True)
        for file, text in (files or {}).items():
            (folder / file).write_text(text)
        (folder / "source.toml").write_text(f"train = {json.dumps(command)}\nserve = {json.dumps(command)}\n")
        return name

    def add_script(self, name: str, text: str) -> str:
        """A folder whose trainer and server are this shell script, which starts sooner than Python."""
        return self.add_command(name, "/bin/sh", "-c", text)

    def make_runtime(self, **changes: Any) -> ProcessRuntime:
        inherited = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR")
        environment = {name: os.environ[name] for name in inherited if name in os.environ}
        packages = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "PIP_"))}
        arguments: dict[str, Any] = {
            "state": self.state,
            "project_root": self.project,
            "ports": choose_mine(*WORKSHOP_PORTS),
            "environment": environment,
            "build_environment": {**environment, **packages},
        }
        return ProcessRuntime(**(arguments | changes))

    def make_pipes(self, *names: str) -> dict[str, str]:
        """For the environment of what shall wait for the test, or the test for it."""
        return {name: str(make_pipe(self.directory / name.lower())) for name in names}

    def home(self, owner: str) -> Path:
        return self.state / "workloads" / owner

    def pid(self, owner: str, who: str = "child") -> int:
        return int(json.loads((self.home(owner) / "started.json").read_text())[who])

    def groups(self, owner: str) -> list[Path]:
        """Control groups that it was put in."""
        return [Path(group) for group in json.loads((self.home(owner) / "order.json").read_text())["groups"]]

    def kill_shim(self, owner: str) -> None:
        os.kill(self.pid(owner, "shim"), signal.SIGKILL)


async def launch(
    runtime: Runtime,
    owner: str,
    source: str,
    *,
    role: Role = Role.TRAINER,
    env: dict[str, str] | None = None,
    resources: Resources | None = None,
) -> WorkloadState:
    image = await runtime.resolve_image(source)
    return await runtime.launch(
        Workload(
            owner=owner,
            role=role,
            name=f"name-of-{owner}",
            image=image,
            env=env or {},
            resources=resources or Resources(),
        )
    )


async def run_to_end(
    runtime: Runtime,
    owner: str,
    source: str,
    *,
    env: dict[str, str] | None = None,
    resources: Resources | None = None,
) -> WorkloadState:
    listener = Listener(runtime)
    await launch(runtime, owner, source, env=env, resources=resources)
    await listener.wait_for(owner)
    state = await runtime.inspect(owner)
    assert state is not None
    return state


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pid: int) -> None:
    """Of a process that need not be our child."""
    if is_running(pid):
        _, alive = psutil.wait_procs([psutil.Process(pid)], timeout=60)
        assert not alive or not is_running(pid)


def make_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


async def read_pipe(path: str) -> str:
    """What the other side says until it closes the pipe."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await to_thread.run_sync(Path(path).read_text, abandon_on_cancel=True)


async def write_pipe(path: str, text: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        await to_thread.run_sync(Path(path).write_text, text, abandon_on_cancel=True)
