"""Whether a second server fits in memory beside the active one, told before anything is started."""

from dataclasses import dataclass

from router.core.models import Rollout, RolloutPhase, Server, ServerPhase
from router.core.traffic import Traffic
from router.engine.context import Context
from router.engine.servers import SPARE, Servers

MARGIN = 1.25  # of what the active one uses: a candidate is rarely of just the same size
MARGIN_BYTES = 64 * 2**20
MIB = 2**20
LOOK_BACK = 20  # rollouts and servers, for how long a start and a stop take here


@dataclass(frozen=True)
class Shortage:
    needed: int  # bytes
    free: int
    stop: float  # seconds: what it took lately, or the most that it may
    start: float | None  # None: there has been none

    def __str__(self) -> str:
        return (
            f"a second server needs about {self.needed // MIB:,} MiB, as much as the active one uses and a"
            f" margin, and {self.free // MIB:,} MiB are free"
        )

    @property
    def expected_gap(self) -> str:
        """From the active server's SIGTERM to the first answer of the other."""
        if self.start is None:
            took = f"{self.stop:.1f} s to stop the active one, and a start, of which none is known yet"
        else:
            both = self.stop + self.start
            took = f"about {both:.1f} s, {self.stop:.1f} s to stop and {self.start:.1f} s to start"
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
        if free >= needed:
            return None
        rollouts = await self._context.store.find(
            Rollout, endpoint=endpoint, newest_first=True, limit=LOOK_BACK
        )
        stops = (rollout.stop_seconds for rollout in rollouts)
        stop = next((seconds for seconds in stops if seconds is not None), None)
        return Shortage(
            needed,
            free,
            stop=await self._last_idle_stop(endpoint) if stop is None else stop,
            start=next(
                (seconds for rollout in rollouts if (seconds := _tell_start(rollout)) is not None), None
            ),
        )

    async def _last_idle_stop(self, endpoint: str) -> float:
        """Seconds; where none is known, after so many it is killed."""
        grace = self._context.policy.stop_grace
        for server in await self._context.store.find(
            Server, endpoint=endpoint, phases=[ServerPhase.STOPPED], newest_first=True, limit=LOOK_BACK
        ):
            told = server.entered.get(str(ServerPhase.DRAINING))
            if told is not None and server.exit_code is None:  # else it has ended by itself
                return min(grace, server.entered[str(ServerPhase.STOPPED)] - told)
        return grace


def _tell_start(rollout: Rollout) -> float | None:
    """Seconds from launch to the end of the gates."""
    launched, proved = str(RolloutPhase.LAUNCHING), str(RolloutPhase.SHIFTING)
    known = launched in rollout.entered and proved in rollout.entered
    if not known or (rollout.replaces is not None and rollout.stop_seconds is None):
        return None
    return rollout.entered[proved] - rollout.entered[launched] - (rollout.stop_seconds or 0.0)


def _with_margin(used: int) -> int:
    return int(used * MARGIN) + MARGIN_BYTES
