"""One worker per training and rollout: look, decide, act, until a terminal phase.

A worker keeps nothing of its own. Whatever ends the router, the next one takes up the same records and finds
the same next action, because every action may be repeated.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
from anyio.abc import TaskGroup

from router.core.actions import (
    JudgeCandidate,
    LaunchCandidate,
    LaunchTrainer,
    PrepareCandidate,
    ProbeCandidate,
    Wait,
)
from router.core.decide import RolloutSeen, decide_rollout, decide_training
from router.core.errors import StaleRecord, StorageFull, SwitchyardError
from router.core.models import Rollout, RolloutPhase, Training, TrainingPhase
from router.core.verdicts import Verdict
from router.engine.analysis import LOOK_SECONDS, Analyst
from router.engine.context import Context
from router.engine.racing import race, wait_any
from router.engine.rollout_actions import RolloutActions
from router.engine.servers import Servers
from router.engine.training_actions import TrainingActions

# While something that is needed does not answer. The last is how late work goes on after an outage, during
# which a rollout that has only its alias left to move keeps the next one out.
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)

# Dropped when somebody aborts. A stop that has begun is not: it would leave a server that is neither.
SLOW = PrepareCandidate | LaunchCandidate | ProbeCandidate | JudgeCandidate
FIGURES_LOST = "the figures of its last step are lost"
OBSERVED = frozenset({RolloutPhase.PROBING, RolloutPhase.GATING, RolloutPhase.SHIFTING})

T = TypeVar("T", Training, Rollout)
Step = Callable[[T], Awaitable[float | None]]
Fail = Callable[[T, SwitchyardError], Awaitable[None]]
log = structlog.get_logger()


class Reconciler:
    def __init__(self, context: Context, servers: Servers, group: TaskGroup) -> None:
        self._context = context
        self._ledger = context.ledger
        self._group = group
        self._trainings = TrainingActions(context)
        self._rollouts = RolloutActions(context, servers)
        self._analyst = Analyst(context)

    async def take_up_all(self) -> None:
        """Everything that a router before us has left unfinished."""
        store = self._context.store
        trainings = await store.find(Training, phases=[p for p in TrainingPhase if not p.terminal])
        rollouts = await store.find(Rollout, phases=[p for p in RolloutPhase if not p.terminal])
        for training in trainings:
            self.take_up(training)
        for rollout in rollouts:
            self.take_up(rollout)

    def take_up(self, record: Training | Rollout) -> None:
        if isinstance(record, Training):
            self._group.start_soon(self._work_training, record.id)
        else:
            self._group.start_soon(self._work_rollout, record.id)

    async def _work_training(self, record_id: str) -> None:
        training = await self._work(Training, record_id, self._step_training, self._trainings.fail)
        if training.roll is not None and training.phase is TrainingPhase.SUCCEEDED:
            await self._work_rollout(training.roll.rollout_id)  # written with the training's end

    async def _work_rollout(self, record_id: str) -> None:
        rollout = await self._work(Rollout, record_id, self._step_rollout, self._fail_rollout)
        try:
            await self._complete_steps(rollout)
        except Exception:
            log.exception(FIGURES_LOST, subject=record_id)
        self._analyst.forget(record_id)

    async def _work(self, kind: type[T], record_id: str, step: Step[T], fail: Fail[T]) -> T:
        """The record at its end."""
        failures = 0
        while True:
            changed = self._ledger.wakeups.take(record_id)
            try:
                record = await self._context.store.get(kind, record_id)
                if record.phase.terminal:
                    return record
                due = await self._attempt(record, step, fail)
                failures = 0
            except StaleRecord:
                continue
            except SwitchyardError as error:
                log.warning("cannot go on for now", subject=record_id, error=error.message)
                if isinstance(error, StorageFull):
                    self._ledger.hold_up(record_id, error)
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                if self._analyst.watches(record_id):  # users have the candidate, whatever is away
                    pause = LOOK_SECONDS
                due = self._context.clock.now() + pause
                failures += 1
            await wait_any(
                self._context.clock, None if due is None else due - self._context.clock.now(), changed
            )

    async def _attempt(self, record: T, step: Step[T], fail: Fail[T]) -> float | None:
        """One step. Returns when the next is due; raises what is worth another try later."""
        try:
            return await step(record)
        except StaleRecord:
            raise
        except SwitchyardError as error:
            if error.retryable:
                await self._note_waiting(record, error)
                raise
            log.warning(error.message, subject=record.id, code=error.code)
            await fail(await self._see_notes(record), error)
        except Exception as bug:
            log.exception("an action broke", subject=record.id)
            broken = SwitchyardError(f"the router broke: {type(bug).__name__}: {bug}")
            await fail(await self._see_notes(record), broken)
        return self._context.clock.now()

    async def _see_notes(self, record: T) -> T:
        """As it is stored, if nothing has changed since but what it says that it waits for."""
        stored = await self._context.store.get(type(record), record.id)
        before = {name: getattr(record, name) for name in ("revision", "updated_at", "waiting_on")}
        return stored if stored.model_copy(update=before) == record else record

    async def _note_waiting(self, record: T, error: SwitchyardError) -> None:
        stored = await self._context.store.get(type(record), record.id)
        if stored.waiting_on != error.message:
            await self._ledger.move(stored, f"waiting: {error.message}", waiting_on=error.message)

    async def _step_training(self, training: Training) -> float | None:
        """One action; returns when the next look is due (epoch seconds), None: only on an event."""
        observed = training.phase is TrainingPhase.RUNNING
        workload = await self._context.runtime.inspect(training.id) if observed else None
        now = self._context.clock.now()
        action = decide_training(training, workload, now)
        if isinstance(action, Wait):  # an event tells of the end; a look now and then finds one that was lost
            look = now + self._context.policy.sweep_seconds
            return look if action.until is None else min(look, action.until)
        if isinstance(action, LaunchTrainer):
            await self._unless_told_to_end(training, partial(self._trainings.carry_out, training, action))
        else:
            await self._trainings.carry_out(training, action)
        return self._context.clock.now()

    async def _fail_rollout(self, rollout: Rollout, error: SwitchyardError) -> None:
        finding = None
        try:
            finding = await self._analyst.close_step(rollout)
        except Exception:  # perhaps the very thing that broke: users get back what they had all the same
            log.exception(FIGURES_LOST, subject=rollout.id)
        await self._rollouts.fail(rollout, error, finding)

    async def _complete_steps(self, rollout: Rollout) -> bool:
        """Whether a step lacked its figures, and has them now."""
        steps = await self._analyst.complete(rollout)
        if steps is not None:
            await self._ledger.move(rollout, steps=steps)
        return steps is not None

    async def _step_rollout(self, rollout: Rollout) -> float | None:
        traffic = await self._context.proxy.read_traffic(rollout.endpoint)
        if await self._complete_steps(rollout):
            return self._context.clock.now()
        candidate = None
        if rollout.preempted or (rollout.abort_requested and not rollout.phase.switched):
            # This needs nothing that may be away just now.
            finding = await self._analyst.close_step(rollout)
        else:
            finding = await self._analyst.look(rollout, traffic)
            # What is convicted loses its share also while the runtime does not answer.
            convicted = finding is not None and finding.verdict is Verdict.FAILED
            if rollout.phase in OBSERVED and rollout.server_id is not None and not convicted:
                candidate = await self._context.runtime.inspect(rollout.server_id)
        now = self._context.clock.now()
        seen = RolloutSeen(traffic, candidate, finding, await self._is_active_in_the_way(rollout))
        action = decide_rollout(rollout, seen, now)
        if isinstance(action, Wait):
            if action.reason is not None and rollout.waiting_on != action.reason:
                await self._ledger.move(rollout, action.reason, waiting_on=action.reason)
            look = None
            if finding is not None:
                look = now + LOOK_SECONDS
            elif rollout.phase in OBSERVED:  # an event tells of its server's end; a look, if that was lost
                look = now + self._context.policy.sweep_seconds
            return min((at for at in (look, action.until) if at is not None), default=None)
        if isinstance(action, SLOW):
            await self._unless_told_to_end(rollout, partial(self._rollouts.carry_out, rollout, action))
        elif begun := await self._rollouts.carry_out(rollout, action, finding):
            self._group.start_soon(self._work_rollout, begun)
        return self._context.clock.now()

    async def _is_active_in_the_way(self, rollout: Rollout) -> bool:
        if rollout.replaces is None or rollout.phase is not RolloutPhase.LAUNCHING:
            return False
        state = await self._context.runtime.inspect(rollout.replaces)
        return state is not None and state.running

    async def _unless_told_to_end(self, record: T, act: Callable[[], Awaitable[object]]) -> None:
        """A slow action is dropped when somebody cancels or aborts: the next decision cleans up after it.

        Making a run is not among them: a run that MLflow has and no record knows would never be closed.
        """
        await race(act, partial(self._ledger.until, record, _told_to_end))


def _told_to_end(record: Training | Rollout) -> bool:
    if isinstance(record, Training):
        return record.cancel_requested
    return record.abort_requested or record.preempted
