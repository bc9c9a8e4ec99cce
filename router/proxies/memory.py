"""The proxy of pure tests: one process, no sockets, and requests that are answered by whoever should."""

from collections import Counter
from collections.abc import Sequence

from router.core.errors import InvalidRequest, SwitchyardError, UnknownEndpoint
from router.core.traffic import DEFAULT_ENDPOINT, Traffic, cut_for
from router.proxies.base import Sample
from router.proxies.slot_directory import check_address, check_name


class MemoryProxy:
    """Deterministic. `fail_with` is raised by every call until it is None again; what held still holds."""

    def __init__(self, idle_address: str = "127.0.0.1:9001") -> None:
        self.idle_address = idle_address
        self.fail_with: SwitchyardError | None = None
        self.busy: Counter[str] = Counter()  # requests inside, by address
        self.behaviour: dict[str, tuple[int, float]] = {}  # by address: status, and seconds to the answer
        self.recorded: list[Sample] = []
        self.history: list[tuple[str, Traffic]] = []  # every change of traffic
        self.reloads = 0
        self.changed_by_hand: set[str] = set()  # endpoints
        self._traffic: dict[str, Traffic] = {}
        self._asked = 0

    async def start(self) -> None:
        """As the real ones: not being able to reach the proxy is no reason not to start."""
        self._traffic.setdefault(DEFAULT_ENDPOINT, Traffic())

    async def close(self) -> None:
        return

    async def check(self) -> None:
        self._fail_if_told()

    async def ensure_endpoints(self, names: Sequence[str]) -> None:
        self._fail_if_told()
        new = [check_name(name) for name in dict.fromkeys(names) if name not in self._traffic]
        self._traffic |= {name: Traffic() for name in new}
        self.reloads += bool(new)

    async def remove_endpoints(self, names: Sequence[str]) -> None:
        self._fail_if_told()
        if DEFAULT_ENDPOINT in names:
            raise InvalidRequest("the default endpoint cannot be removed: it is the public URL itself")
        gone = [self._traffic.pop(name) for name in names if name in self._traffic]
        self.reloads += bool(gone)

    async def endpoints(self) -> list[str]:
        return sorted(self._traffic)

    async def read_traffic(self, endpoint: str) -> Traffic:
        self._fail_if_told()
        return self._find(endpoint)

    async def set_traffic(self, endpoint: str, traffic: Traffic) -> None:
        self._fail_if_told()
        self._find(endpoint)
        for upstream in (traffic.active, traffic.candidate):
            if upstream is not None:
                check_address(upstream)
        self._traffic[endpoint] = traffic
        self.history.append((endpoint, traffic))

    async def mend_traffic(self, endpoint: str) -> bool:
        self._fail_if_told()
        self._find(endpoint)
        was_changed = endpoint in self.changed_by_hand
        self.changed_by_hand.discard(endpoint)
        return was_changed

    async def named_addresses(self) -> frozenset[str]:
        self._fail_if_told()
        held = [traffic for endpoint, traffic in self.history if endpoint in self._traffic]
        named = (upstream for traffic in held for upstream in (traffic.active, traffic.candidate))
        return frozenset(upstream.address for upstream in named if upstream)

    async def in_flight(self, address: str) -> int:
        self._fail_if_told()
        return self.busy[address]

    async def rewind(self) -> str:
        self._fail_if_told()
        return "0"

    async def samples(self, cursor: str | None) -> tuple[list[Sample], str]:
        self._fail_if_told()
        end = len(self.recorded)
        return self.recorded[end if cursor is None else int(cursor) :], str(end)

    def answer(
        self,
        endpoint: str,
        *,
        by_header: bool = False,
        status: int = 200,
        cookies: dict[str, str] | None = None,
    ) -> str:
        """One request, as Caddy would route it: the address that it reaches. Recorded as a sample unless it
        asked for the candidate.

        The request's number stands for its uuid; multiples of an odd number visit every share evenly.
        `cookies` is the client's jar, None for one that keeps none.
        """
        traffic = self._find(endpoint)
        active = traffic.active.address if traffic.active else self.idle_address
        self._asked += 1
        uuid = f"{self._asked * 40503 % 0x10000:04x}-"
        if traffic.candidate is not None and traffic.sticky and cookies is not None:
            uuid = cookies.setdefault(endpoint, uuid)
        chosen = traffic.candidate is not None and (by_header or uuid < cut_for(traffic.weight))
        address = traffic.candidate.address if chosen and traffic.candidate else active
        status, seconds = self.behaviour.get(address, (status, 0.001))
        if not by_header:
            self.recorded.append(Sample(float(self._asked), endpoint, address, status, seconds))
        return address

    def _find(self, endpoint: str) -> Traffic:
        if check_name(endpoint) not in self._traffic:
            raise UnknownEndpoint(f"there is no endpoint {endpoint}")
        return self._traffic[endpoint]

    def _fail_if_told(self) -> None:
        if self.fail_with is not None:
            raise self.fail_with
