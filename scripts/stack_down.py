"""Ends what the demo started: the router first, so that it starts nothing anew, then what it had started."""

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from router.core.errors import SwitchyardError
from router.core.workload import WorkloadState
from router.runtimes.base import Runtime
from router.settings import Settings
from router.wiring import build_runtime
from scripts.stack import LOCK, Stack
from scripts.stack_error import StackError

SERVER_GRACE_SECONDS = 10


def main() -> int:
    options = sys.argv[1:]
    if set(options) - {"--wipe"}:
        print("usage: scripts/down [--wipe]", file=sys.stderr)
        return 2
    try:
        stack = Stack.from_environment()
        if stack.home.exists():
            with stack.turn():
                stop_all(stack)
                if "--wipe" in options:
                    anyio.run(remove_workloads, stack)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if "--wipe" in options and stack.home.exists():
        wipe(stack)
        print(f"down: deleted all state in {stack.home}")
    elif stack.home.exists():
        print(f"down: runs, models and records stay in {stack.home}; scripts/down --wipe deletes them")
    else:
        print("down: nothing runs and there is no state")
    return 0


def stop_all(stack: Stack) -> None:
    report("router", stack.stop("router"))
    try:
        anyio.run(stop_workloads, stack)
    except SwitchyardError as error:
        raise StackError(f"servers and trainers may still run: {error.message}") from error
    finally:
        report("caddy", stack.stop("caddy"))
        report("mlflow", stack.stop("mlflow"))


def wipe(stack: Stack) -> None:
    """Only the folders that the stack made: SWITCHYARD_HOME may hold other things."""
    for name in ("state", "mlflow", "run", "logs", "caddy-config", "caddy-data"):
        if (stack.home / name).exists():
            shutil.rmtree(stack.home / name)
    (stack.home / LOCK).unlink(missing_ok=True)
    if not any(stack.home.iterdir()):
        stack.home.rmdir()


def report(name: str, stopped: bool) -> None:
    print(f"down: {name} {'stopped' if stopped else 'did not run'}", flush=True)


async def stop_workloads(stack: Stack) -> None:
    """Servers and trainers outlive the router on purpose, so they are ended through their runtime."""
    async with find_workloads(stack) as (runtime, running), anyio.create_task_group() as group:
        for state in running:
            group.start_soon(runtime.stop, state.owner, SERVER_GRACE_SECONDS)
    for state in running:
        report(f"{state.role} {state.name}", stopped=True)


async def remove_workloads(stack: Stack) -> None:
    """With what they keep outside of the stack's folders: each has had a folder for sockets in /tmp."""
    async with open_runtime(stack) as runtime, anyio.create_task_group() as group:
        for state in await runtime.list_owned():
            group.start_soon(runtime.remove, state.owner)


@asynccontextmanager
async def find_workloads(stack: Stack) -> AsyncIterator[tuple[Runtime, list[WorkloadState]]]:
    """Those that run, and what runs them."""
    async with open_runtime(stack) as runtime:
        yield runtime, [state for state in await runtime.list_owned() if state.running]


@asynccontextmanager
async def open_runtime(stack: Stack) -> AsyncIterator[Runtime]:
    runtime = build_runtime(Settings.load(stack.router().environment))
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.close()


if __name__ == "__main__":
    sys.exit(main())
