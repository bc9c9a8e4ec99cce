"""Ends what the demo started: the router first, so that it starts nothing anew, then what it had started."""

import os
import shutil
import sys

import anyio

from router.settings import Settings
from router.wiring import build_runtime
from scripts.stack import Ports, Stack, StackError

SERVER_GRACE_SECONDS = 10


def main() -> int:
    options = sys.argv[1:]
    if set(options) - {"--wipe"}:
        print("usage: scripts/down [--wipe]", file=sys.stderr)
        return 2
    try:
        stack = Stack(Ports.from_environment())
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if stack.home.exists():
        report("router", stack.stop("router"))
        anyio.run(stop_workloads, stack)
        report("caddy", stack.stop("caddy"))
        report("mlflow", stack.stop("mlflow"))
    if "--wipe" in options and stack.home.exists():
        shutil.rmtree(stack.home)
        print(f"down: deleted {stack.home}")
    elif stack.home.exists():
        print(f"down: runs, models and records stay in {stack.home}; scripts/down --wipe deletes them")
    else:
        print("down: nothing runs and there is no state")
    return 0


def report(name: str, stopped: bool) -> None:
    print(f"down: {name} {'stopped' if stopped else 'did not run'}", flush=True)


async def stop_workloads(stack: Stack) -> None:
    """Servers and trainers outlive the router on purpose, so they are ended through their runtime."""
    os.environ.update(stack.router().environment)
    runtime = build_runtime(Settings.load())
    await runtime.start()
    running = [state for state in await runtime.list_owned() if state.running]
    async with anyio.create_task_group() as group:
        for state in running:
            group.start_soon(runtime.stop, state.owner, SERVER_GRACE_SECONDS)
    await runtime.close()
    for state in running:
        report(f"{state.role} {state.name}", stopped=True)


if __name__ == "__main__":
    sys.exit(main())
