"""Where a stack keeps what it must find again: one class for each of the two stacks, chosen by RUNTIME."""

import os
from contextlib import AbstractContextManager
from typing import IO, Any, Protocol


class StackState(Protocol):
    runtime: str
    start_command: str
    stop_command: str
    store_url: str  # of a store that is not in the state; empty: it is
    token: str  # of the router's API, or empty
    router_address: str  # host:port

    def turn(self) -> AbstractContextManager[None]:
        """Nobody else starts or stops the stack meanwhile."""

    def missing(self) -> str | None:
        """Why there is nothing to be packed."""

    def pack(self, output: IO[bytes]) -> None: ...

    def running(self) -> list[str]: ...

    def prepare(self) -> None:
        """What has to be there before it can be filled."""

    def find_content(self) -> str | None:
        """A file that would be replaced."""

    def unpack(self, source: IO[bytes]) -> None: ...

    def lacks(self, serving: dict[str, Any]) -> str | None:
        """What a server of the manifest is made of, and is not here."""

    def stop(self) -> None: ...

    def start(self) -> None: ...


def choose_state() -> StackState:
    """Only what is chosen is imported: a machine with Docker alone has no packages."""
    if os.environ.get("RUNTIME") == "docker":
        from scripts.docker_state import DockerState

        return DockerState()
    from scripts.process_state import ProcessState

    return ProcessState()


def describe_serving(manifest: dict[str, Any]) -> list[str]:
    """What serves once it is restored, and what it takes: images are not in an archive."""
    return [
        f"{each['endpoint']} serves models:/{each['model_name']}/{each['model_version']}"
        f" with {each['serve_image']} ({each['serve_digest'][:19]})"
        for each in manifest["serving"]
    ]
