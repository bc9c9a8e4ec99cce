"""Watches candidate and active server while both can be compared, from the proxy's own record of requests.

Nothing of it is stored: a router that takes over begins the step's evidence anew.
"""

from dataclasses import dataclass

from router.core.models import Rollout, RolloutPhase, Server
from router.core.tallies import Window, sort_answers
from router.core.traffic import ALL, Traffic, cut_for
from router.core.verdicts import Judge, Judgement
from router.engine.context import Context

# Between two looks. One look moves the evidence by a bounded factor, so that one bad moment convicts nobody.
LOOK_SECONDS = 0.5
WATCHED = frozenset({RolloutPhase.SHIFTING, RolloutPhase.PROMOTING, RolloutPhase.BAKING})


@dataclass(frozen=True)
class Sides:
    active: str  # address, as all here
    candidate: str


@dataclass
class Watch:
    cursor: str
    judge: Judge
    step: int  # how many steps the rollout had


class Analyst:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._watches: dict[str, Watch] = {}

    async def look(self, rollout: Rollout, traffic: Traffic) -> Judgement | None:
        """What the requests so far say; None if there is nothing to compare, or nobody wants it."""
        sides = await self._find_sides(rollout, traffic)
        if sides is None:
            self.forget(rollout.id)
            return None
        watch = self._watches.get(rollout.id)
        if watch is None:
            watch = self._watches[rollout.id] = await self._begin(rollout, sides)
        samples, watch.cursor = await self._context.proxy.samples(watch.cursor)
        watch.judge = watch.judge.feed(sort_answers(samples, sides.active, sides.candidate))
        if watch.step != len(rollout.steps):  # what was answered up to here belongs to the step before
            watch.step = len(rollout.steps)
            watch.judge = watch.judge.begin_step(alone=_is_alone(rollout))
        return watch.judge.judge()

    def forget(self, rollout_id: str) -> None:
        """It has ended."""
        self._watches.pop(rollout_id, None)

    async def _find_sides(self, rollout: Rollout, traffic: Traffic) -> Sides | None:
        """After the switch, the server that users had before is what the new one is compared with."""
        if rollout.phase not in WATCHED or not rollout.plan.analysis.enabled or traffic.active is None:
            return None
        if not rollout.phase.switched:
            beside = traffic.candidate
            named = beside is not None and beside.server_id == rollout.server_id
            return Sides(traffic.active.address, beside.address) if beside and named else None
        if rollout.plan.bake == 0 or rollout.previous_server_id in (None, rollout.server_id):
            return None
        before = await self._context.store.get(Server, str(rollout.previous_server_id))
        return Sides(before.address, traffic.active.address) if before.address else None

    async def _begin(self, rollout: Rollout, sides: Sides) -> Watch:
        """What the active server did until now is what latencies are measured by.

        Which requests belong to the step is told by where they stand in the record and not by their times:
        the clock may be set.
        """
        samples, cursor = await self._context.proxy.samples(await self._context.proxy.rewind())
        known = Window(active=sort_answers(samples, sides.active, sides.candidate).active)
        judge = Judge(policy=rollout.plan.analysis, seen=known)
        return Watch(cursor, judge.begin_step(alone=_is_alone(rollout)), len(rollout.steps))


def _is_alone(rollout: Rollout) -> bool:
    """Whether its candidate gets all requests: also by a share that was set by hand."""
    return rollout.phase.switched or (rollout.weight is not None and cut_for(rollout.weight) == ALL)
