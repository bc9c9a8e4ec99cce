"""Gives a proved candidate its share of the traffic, then all of it, and takes it back.

Each change of traffic is written down first and made inside the endpoint's lock; repeating it is harmless.
"""

from router.core.actions import (
    EnterStep,
    PauseRollout,
    RecordShift,
    RolloutAction,
    SetWeight,
    ShiftTraffic,
    TakeBack,
)
from router.core.errors import CandidateUnhealthy, NothingToRollBackTo, StaleRecord
from router.core.models import Failure, Rollout, RolloutPhase, Server, ServerPhase, StepRecord
from router.core.traffic import Traffic
from router.core.verdicts import Judgement
from router.engine.context import Context, giving_up_without_room, upstream_of
from router.engine.probing import ProbeFailed
from router.engine.rollbacks import RollbackRequest, Rollbacks
from router.engine.servers import HAD_TRAFFIC, Servers
from router.engine.steering import close_step
from router.stores.base import Change

PING_SECONDS = 2.0
FRESH_SECONDS = 1.0  # for so long an answered ping counts as just now
THE_WATCH = "switchyard"  # who asks for a rollback when no person does


class Shifting:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._rollbacks = Rollbacks(context, servers)

    async def carry_out(
        self, rollout: Rollout, action: RolloutAction, finding: Judgement | None
    ) -> str | None:
        """The id of a rollout that has to be begun now, if any."""
        match action:
            case EnterStep(step, weight):
                await self._enter_step(rollout, step, weight, finding)
            case SetWeight():
                await self._set_weight(rollout)
            case PauseRollout(reason):
                await self._ledger.move(rollout, reason, paused=reason)
            case ShiftTraffic():
                await self._shift(rollout, finding)
            case RecordShift():
                await self._record_shift(rollout, finding)
            case TakeBack(failure):
                return await self._take_back(rollout, failure, finding)
        return None

    async def _enter_step(
        self, rollout: Rollout, step: int, weight: float, finding: Judgement | None
    ) -> None:
        now = self._context.clock.now()
        await self._ledger.move(
            rollout,
            f"{weight:g}% of the traffic is to go to the candidate",
            step=step,
            waiting_on=None,
            steps=(*close_step(rollout, now, finding=finding), StepRecord(weight=weight, since=now)),
        )

    async def _set_weight(self, rollout: Rollout) -> None:
        assert rollout.weight is not None
        server = await self._candidate(rollout)
        async with self._context.traffic_locks[rollout.endpoint]:
            await self._refuse_stale(rollout)
            traffic = await self._context.proxy.read_traffic(rollout.endpoint)
            shared = Traffic(
                active=traffic.active,
                candidate=upstream_of(server),
                weight=rollout.weight,
                sticky=rollout.plan.sticky,
            )
            await self._context.proxy.set_traffic(rollout.endpoint, shared)
        self._ledger.wakeups.notify(rollout.id)  # whoever has set it by hand waits for it
        if server.phase is not ServerPhase.READY:
            await self._ledger.apply(self._servers.has_traffic(server))

    async def withdraw(self, rollout: Rollout) -> None:
        """Nothing goes to its candidate any more, as far as it had a share; nothing else is changed."""
        async with self._context.traffic_locks[rollout.endpoint]:
            traffic = await self._context.proxy.read_traffic(rollout.endpoint)
            if traffic.candidate is not None and traffic.candidate.server_id == rollout.server_id:
                await self._context.proxy.set_traffic(rollout.endpoint, Traffic(active=traffic.active))

    async def _take_back(self, rollout: Rollout, failure: Failure, finding: Judgement | None) -> str | None:
        """Users go back by a rollback like any other, which pushes this rollout aside."""
        now = self._context.clock.now()
        steps = close_step(rollout, now, finding=finding)
        wanted = RollbackRequest(rollout.endpoint, THE_WATCH, reason=failure.message)
        async with self._context.traffic_locks[rollout.endpoint]:
            active = (await self._context.proxy.read_traffic(rollout.endpoint)).active
            if active is None or not rollout.is_served_by(active):
                raise StaleRecord(f"rollout {rollout.id} is not served any more: its server has died")
            try:
                back, _ = await self._rollbacks.draft(wanted)
            except NothingToRollBackTo as nothing:
                warning = f"{failure.message}, but {nothing.message}"
                await self._ledger.move(
                    rollout,
                    warning,
                    phase=RolloutPhase.SUCCEEDED,
                    paused=None,
                    steps=steps,
                    failure=failure,
                    warnings=(*rollout.warnings, warning),
                )
                return None
            pushed = self._ledger.moved(
                rollout, failure.message, preempted=True, paused=None, failure=failure, steps=steps
            )
            await self._ledger.apply(pushed, self._ledger.opened(back, f"rollback to {back.model_uri}"))
        return back.id

    async def _shift(self, rollout: Rollout, finding: Judgement | None) -> None:
        """The intent (what served before) is written before the switch, what follows from it after."""
        server = await self._candidate(rollout)
        if not self._was_taken_up_just_now(rollout) and not await self._still_answers(rollout, server):
            return
        async with self._context.traffic_locks[rollout.endpoint]:
            traffic = await self._context.proxy.read_traffic(rollout.endpoint)
            previous = traffic.active.server_id if traffic.active else None
            rollout = await self._intend_shift(rollout, previous)
            with giving_up_without_room():
                await self._context.proxy.set_traffic(rollout.endpoint, Traffic(active=upstream_of(server)))
            await self._record_shift(rollout, finding)

    def _was_taken_up_just_now(self, rollout: Rollout) -> bool:
        """A warm server answers `/ping` when it is taken up; nothing comes between that and the switch."""
        at_once = str(RolloutPhase.GATING) not in rollout.entered
        return at_once and self._context.clock.now() - rollout.entered[rollout.phase] < FRESH_SECONDS

    async def _still_answers(self, rollout: Rollout, server: Server) -> bool:
        """If not, it has to prove itself again: one that is dying is found dead by that, its log whole.

        Raises CandidateUnhealthy if users' requests go to it already: they are not to wait for its proof.
        """
        assert server.address is not None
        shared = bool(rollout.weight)
        try:
            left = PING_SECONDS if shared else rollout.ready_deadline - self._context.clock.now()
            await self._context.prober.ping(server.address, max(PING_SECONDS, left))
        except ProbeFailed as failed:
            if shared:
                raise CandidateUnhealthy(
                    f"the candidate for {rollout.model_uri} stopped answering just before the switch:"
                    f" {failed}; users got back what they had",
                    hint="the end of its log is in `logs_tail`",
                ) from failed
            text = f"the candidate stopped answering just before the switch: {failed}"
            await self._ledger.move(rollout, text, phase=RolloutPhase.PROBING)
            return False
        return True

    async def _intend_shift(self, rollout: Rollout, previous: str | None) -> Rollout:
        if rollout.previous_server_id != previous:
            return await self._ledger.move(rollout, previous_server_id=previous)
        return await self._refuse_stale(rollout)

    async def _record_shift(self, rollout: Rollout, finding: Judgement | None) -> None:
        server = await self._candidate(rollout)
        changes: list[Change] = []
        if server.phase is not ServerPhase.READY:
            changes.append(self._servers.has_traffic(server))
        if rollout.previous_server_id not in (None, rollout.server_id):
            previous = await self._context.store.get(Server, str(rollout.previous_server_id))
            if previous.phase in HAD_TRAFFIC and await self._rollbacks.has_failed(previous):
                changes.append(self._servers.send_away(previous, "it did worse than what users had"))
            elif previous.phase in HAD_TRAFFIC:  # also what the supervisor has seen without traffic before us
                changes.append(self._servers.lost_traffic(previous, rollout.plan.bake))
        now = self._context.clock.now()
        switched = self._ledger.moved(
            rollout,
            f"users get {rollout.model_uri} from {server.name}",
            phase=RolloutPhase.PROMOTING,
            steps=(*close_step(rollout, now, finding=finding), StepRecord(weight=100, since=now)),
            bake_until=now + rollout.plan.bake,
            bake_limit=now + self._servers.kept_warm(rollout.plan.bake),
            paused=None,  # what a person said of the steps says nothing of the bake
            accepted_step=None,
        )
        await self._ledger.apply(switched, *changes)

    async def _refuse_stale(self, rollout: Rollout) -> Rollout:
        """Raises StaleRecord if an abort or a preemption came in the meantime."""
        stored = await self._context.store.get(Rollout, rollout.id)
        if stored.revision != rollout.revision:
            raise StaleRecord(f"rollout {rollout.id} has moved since it was read")
        return stored

    async def _candidate(self, rollout: Rollout) -> Server:
        assert rollout.server_id is not None
        return await self._context.store.get(Server, rollout.server_id)
