"""A router that launches one workload, says so before and after, and waits to be killed.

python -m tests.integration.runtimes.launching_router DIRECTORY OWNER SOURCE
"""

import signal
import sys
from pathlib import Path

import anyio

from router.runtimes.process import ProcessRuntime
from tests.integration.runtimes.workshop import Workshop, launch


async def start(runtime: ProcessRuntime, owner: str, source: str) -> None:
    await runtime.start()
    say("launching")
    state = await launch(runtime, owner, source)
    say(state.status)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    directory, owner, source = sys.argv[1:]
    anyio.run(start, Workshop(Path(directory)).make_runtime(), owner, source)
    signal.pause()
