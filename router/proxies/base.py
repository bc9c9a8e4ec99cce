"""The port to the reverse proxy. A change of traffic is atomic and survives a crash of everybody."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.core.traffic import Traffic


@dataclass(frozen=True)
class Sample:
    """One answered request, from the proxy's own record of it."""

    at: float  # epoch seconds, end of the request
    endpoint: str
    address: str  # of the server that answered, host:port
    status: int
    seconds: float  # time to the upstream's answer


class Proxy(Protocol):
    """Errors: ProxyUnavailable, UnknownEndpoint, StorageFull."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self) -> None:
        """Raise ProxyUnavailable if the proxy does not answer on its admin API."""

    async def ensure_endpoints(self, names: Sequence[str]) -> None:
        """Make routes and directories for all of these at once: one reload at most, none if none is new."""

    async def remove_endpoints(self, names: Sequence[str]) -> None: ...

    async def endpoints(self) -> list[str]:
        """Names that have a directory."""

    async def read_traffic(self, endpoint: str) -> Traffic:
        """What users get now, whoever wrote it. Raises UnknownEndpoint."""

    async def set_traffic(self, endpoint: str, traffic: Traffic) -> None:
        """Atomic and durable: on return it holds, also after a power cut; on an error the old one does.

        A StorageFull error leaves the old traffic whole. Works while the proxy itself is down, if the
        driver's switch is on disk.
        """

    async def mend_traffic(self, endpoint: str) -> bool:
        """Whether somebody had changed or deleted what it reads on disk, and it had to be written anew.

        Of a proxy that is told of each change nothing is checked but what the next router will find.
        Raises UnknownEndpoint.
        """

    async def named_addresses(self) -> frozenset[str]:
        """Every address that traffic names, or named and may name again: none may become another server's."""

    async def in_flight(self, address: str) -> int:
        """Requests inside this upstream now, from the proxy."""

    async def rewind(self) -> str:
        """A cursor some thousand requests back, as far as there are records of them."""

    async def samples(self, cursor: str | None) -> tuple[list[Sample], str]:
        """Requests answered since the cursor (None: from now on), and the next cursor.

        Without those that asked for the candidate by header: their senders are not users.
        """
