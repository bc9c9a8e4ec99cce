"""Whether a second server fits in memory beside the active one, told before anything is started."""

from dataclasses import dataclass

from router.core.models import Rollout, RolloutPhase
from router.core.traffic import DEFAULT_ENDPOINT, Traffic
from router.engine.context import Context
from router.engine.servers import SPARE, Servers

MARGIN = 1.25  # of what the active one uses: a candidate is rarely of just the same size
MARGIN_BYTES = 64 * 2**20
MIB = 2**20
LOOK_BACK = 20  # rollouts, for how long a start takes here


@dataclass(frozen=True)
class Shortage:
    needed: int  # bytes
    free: int
    gap: float | None  # seconds that a start took lately

    def __str__(self) -> str:
        return (
            f"a second server needs about {self.needed // MIB:,} MiB, as much as the active one uses and a"
            f" margin, and {self.free // MIB:,} MiB are free"
        )

    @property
    def expected_gap(self) -> str:
        took = "unknown" if self.gap is None else f"about {self.gap:.1f} s, as long as the last start took"
        return f"expected gap: {took}; requests wait up to 10 s for the new server, so none is lost in less"


class Room:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._servers = servers

    async def find_shortage(self, endpoint: str, traffic: Traffic) -> Shortage | None:
        """None: it fits, or it cannot be known. What is kept warm makes room anyway, so it counts as free."""
        runtime = self._context.runtime
        memory = await runtime.memory()
        if memory is None or traffic.active is None:
            return None
        if memory.free >= _with_margin(memory.used):
            return None  # whatever it uses is less than everything together; Docker takes a second to tell
        used, free = await runtime.usage(traffic.active.server_id), memory.free
        if used is None:
            return None
        for spare in await self._servers.live(endpoint):
            if spare.phase in SPARE and (spared := await runtime.usage(spare.id)):
                free += spared.memory_bytes
        needed = _with_margin(used.memory_bytes)
        return Shortage(needed, free, await self._last_start(endpoint)) if free < needed else None

    async def _last_start(self, endpoint: str = DEFAULT_ENDPOINT) -> float | None:
        """Seconds from launch to the end of the gates."""
        launched, proved = str(RolloutPhase.LAUNCHING), str(RolloutPhase.SHIFTING)
        rollouts = await self._context.store.find(
            Rollout, endpoint=endpoint, newest_first=True, limit=LOOK_BACK
        )
        for rollout in rollouts:
            if launched in rollout.entered and proved in rollout.entered:
                return rollout.entered[proved] - rollout.entered[launched]
        return None


def _with_margin(used: int) -> int:
    return int(used * MARGIN) + MARGIN_BYTES
