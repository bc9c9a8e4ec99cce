"""Makes a stack again from a file of scripts/backup, and returns when it serves what it served then."""

import argparse
import json
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from scripts.archive import ArchiveError, check
from scripts.stack_error import StackError
from scripts.stack_state import StackState, choose_state, describe_serving

SERVING_SECONDS = 600  # it may have to install a model's packages
POLL_SECONDS = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/restore", description=str(__doc__).splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--check", action="store_true", help="only read the file and compare it with its manifest"
    )
    parser.add_argument(
        "--replace", action="store_true", help="stop the stack that runs, and delete its state"
    )
    given = parser.parse_args()
    try:
        with given.file.open("rb") as source:
            manifest = check(source)
        say(f"{given.file} is whole, of {time.ctime(manifest['made_at'])}")
        if not given.check:
            restore(choose_state(), given.file, manifest, given.replace)
    except (ArchiveError, StackError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in describe_serving(manifest):
        say(line)
    return 0


def say(line: str) -> None:
    print(f"restore: {line}", flush=True)


def restore(state: StackState, file: Path, manifest: dict[str, Any], replace: bool) -> None:
    if manifest["runtime"] != state.runtime:
        raise StackError(
            f"{file} is of a stack with RUNTIME={manifest['runtime']}, and this is one with"
            f" RUNTIME={state.runtime}; nothing was changed"
        )
    with state.turn():
        running = state.running()
        if running and not replace:
            raise StackError(
                f"the stack runs ({', '.join(running)}); nothing was changed. {state.stop_command}, or"
                " --replace, which does that and deletes its state"
            )
        if running:
            state.stop()
        state.prepare()
        content = state.find_content()
        if content is not None and not replace:
            raise StackError(
                f"the stack has a state already ({content}); nothing was changed. --replace deletes it"
            )
        for serving in manifest["serving"]:
            if (what := state.lacks(serving)) is not None:
                say(what)
        with file.open("rb") as source:
            state.unpack(source)
        state.start()
    for serving in manifest["serving"]:
        if serving["endpoint"] == "default":
            await_version(state, serving)


def await_version(state: StackState, serving: dict[str, Any]) -> None:
    """The router brings back what the slot directories name."""
    wanted = serving["model_name"], serving["model_version"]
    deadline = time.monotonic() + SERVING_SECONDS
    while True:
        status = read_status(state)
        if status.get("healthy") and (status["model_name"], status["model_version"]) == wanted:
            return
        if time.monotonic() > deadline:
            raise StackError(
                f"models:/{wanted[0]}/{wanted[1]} does not serve after {SERVING_SECONDS} s; the router's log"
                f" says why. Its image is {serving['serve_image']} ({serving['serve_digest']})"
            )
        time.sleep(POLL_SECONDS)


def read_status(state: StackState) -> dict[str, Any]:
    """Empty: the router does not answer."""
    connection = HTTPConnection(state.router_address, timeout=10)
    headers = {"Authorization": f"Bearer {state.token}"} if state.token else {}
    try:
        connection.request("GET", "/status", headers=headers)
        answer = connection.getresponse()
        found: dict[str, Any] = json.load(answer)
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
