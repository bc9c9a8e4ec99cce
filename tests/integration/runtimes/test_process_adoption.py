"""Launches whose router is killed in the middle, shims that nobody reaps, pids that change hands."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import to_thread

from router.runtimes import process_launch
from router.runtimes.process import ProcessRuntime
from scripts.service_commands import ROOT
from tests.contract.runtime_stages import LIMIT_SECONDS, Listener
from tests.integration.runtimes.workshop import Workshop, is_running, launch, read_pipe, write_pipe

pytestmark = pytest.mark.anyio

WAITS = ': > "$READY"; read code < "$FINISH"; exit "$code"'
PR_SET_CHILD_SUBREAPER = 36


# --- routers that the tests start as programs of their own ----------------------------------------------


async def launch_and_die(directory: str) -> None:
    """A router that is killed as soon as the shim has its order."""

    def give_order_and_die(command: list[str], *, input: bytes, check: bool, **options: object) -> None:  # noqa: A002
        assert not check
        shim = subprocess.Popen(command, stdin=subprocess.PIPE, **options)  # type: ignore[call-overload]
        shim.stdin.write(input)
        shim.stdin.close()
        os.kill(os.getpid(), signal.SIGKILL)

    process_launch.subprocess.run = give_order_and_die  # type: ignore[attr-defined]
    await launch_in(directory)


async def launch_as_first_process(directory: str) -> None:
    """A router to which orphans fall, as to the first process of a container, until the trainer has ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    await launch_in(directory)
    sys.stdin.read()


async def launch_in(directory: str) -> None:
    workshop = Workshop(Path(directory))
    runtime = workshop.make_runtime()
    listener = Listener(runtime)
    await runtime.start()
    env = {name: os.environ[name] for name in ("READY", "FINISH")}
    await launch(runtime, "trn_1", "waits", env=env)
    await listener.wait_for("trn_1")
    sys.stdout.write("ended\n")
    sys.stdout.flush()


@pytest.fixture
def pipes(workshop: Workshop) -> dict[str, str]:
    """Of the trainer `waits`."""
    workshop.add_script("waits", WAITS)
    return workshop.make_pipes("READY", "FINISH")


def start_router(workshop: Workshop, pipes: dict[str, str], how: str) -> subprocess.Popen[str]:
    program = f"import anyio, sys\nfrom {__name__} import *\nanyio.run({how}, sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", program, str(workshop.directory)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **pipes},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_a_child_lives_whose_router_was_killed_in_the_middle_of_its_launch(
    workshop: Workshop, pipes: dict[str, str]
) -> None:
    with start_router(workshop, pipes, "launch_and_die") as router:
        assert await to_thread.run_sync(router.wait, LIMIT_SECONDS) == -signal.SIGKILL
    # Without any wait: its shim may not even have begun.
    runtime = workshop.make_runtime()
    await runtime.start()
    listener = Listener(runtime)
    adopted = await launch(runtime, "trn_1", "waits", env=pipes)
    await read_pipe(pipes["READY"])
    assert await runtime.list_owned() == [adopted]
    await write_pipe(pipes["FINISH"], "3\n")
    await listener.wait_for("trn_1")
    state = await runtime.inspect("trn_1")
    assert state is not None
    assert state.exit_code == 3
    await runtime.close()


async def test_no_zombie_is_left_to_a_router_that_is_the_first_process_of_its_container(
    workshop: Workshop, pipes: dict[str, str]
) -> None:
    with start_router(workshop, pipes, "launch_as_first_process") as router:
        assert router.stdout is not None
        await read_pipe(pipes["READY"])
        assert psutil.Process(workshop.pid("trn_1", "shim")).ppid() == router.pid
        await write_pipe(pipes["FINISH"], "0\n")
        assert await to_thread.run_sync(router.stdout.readline) == "ended\n"
        assert psutil.Process(router.pid).children() == []


# --- pids ----------------------------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


async def test_a_process_that_got_the_pid_while_we_looked_is_neither_watched_nor_signalled(
    workshop: Workshop,
    runtime: ProcessRuntime,
    pipes: dict[str, str],
    bystander: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await launch(runtime, "trn_1", "waits", env=pipes)
    await runtime.close()
    shim = workshop.pid("trn_1", "shim")
    pidfd_open = os.pidfd_open

    def end_and_reuse(pid: int) -> int:
        assert pid == shim
        os.kill(shim, signal.SIGKILL)
        with (workshop.home("trn_1") / "alive").open() as alive:
            fcntl.flock(alive, fcntl.LOCK_SH)
        return pidfd_open(bystander.pid)

    monkeypatch.setattr(os, "pidfd_open", end_and_reuse)
    next_runtime = workshop.make_runtime()
    await next_runtime.stop("trn_1", 0)
    monkeypatch.undo()
    assert is_running(bystander.pid)
    state = await next_runtime.inspect("trn_1")
    assert state is not None
    assert not state.running
    await next_runtime.close()


async def test_a_launch_that_is_adopted_by_two_at_once_is_watched_once(
    workshop: Workshop, runtime: ProcessRuntime, pipes: dict[str, str]
) -> None:
    await launch(runtime, "trn_1", "waits", env=pipes)
    await runtime.close()
    next_runtime = workshop.make_runtime()
    listener = Listener(next_runtime)
    descriptors = psutil.Process().num_fds()
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(launch, next_runtime, "trn_1", "waits")
    assert psutil.Process().num_fds() <= descriptors + 1
    await read_pipe(pipes["READY"])
    await write_pipe(pipes["FINISH"], "0\n")
    await listener.wait_for("trn_1")
    assert listener.heard == ["trn_1"]
    await next_runtime.close()
