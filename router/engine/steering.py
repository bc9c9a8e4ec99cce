"""What people tell a training or rollout that is under way: end, hold, go on, take this share."""

from collections.abc import Callable
from typing import Any, TypeVar

from router.core.errors import AlreadyFinished, NotShifting, StaleRecord
from router.core.models import Rollout, RolloutPhase, StepRecord, Training
from router.engine.context import Context
from router.engine.ledger import Ledger, tell_who
from router.stores.base import Update

T = TypeVar("T", Training, Rollout)
BY_HAND = "its share was set by hand"


class Steering:
    """Each call records what is wanted; the record's worker wakes and does it."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._ledger = context.ledger
        self._clock = context.clock

    async def cancel_training(self, training_id: str) -> None:
        def change(training: Training) -> dict[str, Any]:
            if training.phase.terminal or training.outcome is not None:
                raise AlreadyFinished(f"training {training_id} has ended already ({training.phase})")
            return {"cancel_requested": True}

        await self._change(Training, training_id, "cancelled by request", change)

    async def abort(self, rollout_id: str, by: str | None = None, reason: str | None = None) -> None:
        def change(rollout: Rollout) -> dict[str, Any]:
            _refuse_ended(rollout)
            return {"abort_requested": True}

        await self._change(Rollout, rollout_id, tell_who("aborted", by, reason), change)

    async def pause(self, rollout_id: str, by: str | None = None, reason: str | None = None) -> None:
        """The candidate keeps the share that it has. A breach still takes it away."""
        text = tell_who("paused", by, reason)

        def change(rollout: Rollout) -> dict[str, Any]:
            _refuse_unless_shifting(rollout)
            return {"paused": text}

        await self._change(Rollout, rollout_id, text, change)

    async def resume(self, rollout_id: str, by: str | None = None, reason: str | None = None) -> None:
        """Go on with the next step, or end the bake, also if too little was seen to judge by."""

        def change(rollout: Rollout) -> dict[str, Any]:
            waits = rollout.paused is not None or _is_overdue(rollout, self._clock.now())
            if rollout.phase is not RolloutPhase.BAKING or not waits:
                _refuse_unless_shifting(rollout)
            if not waits:
                raise NotShifting(f"rollout {rollout_id} is not paused")
            return {"paused": None, "accepted_step": rollout.step}

        await self._change(Rollout, rollout_id, tell_who("resumed", by, reason), change)

    async def promote(self, rollout_id: str, by: str | None = None, reason: str | None = None) -> None:
        """Switch now, whatever steps are left."""

        def change(rollout: Rollout) -> dict[str, Any]:
            _refuse_ended(rollout)
            return {"promote_requested": True, "promoted_by": by}

        await self._change(Rollout, rollout_id, tell_who("promoted", by, reason), change)

    async def set_weight(
        self, rollout_id: str, weight: float, by: str | None = None, reason: str | None = None
    ) -> None:
        """The plan waits there; resumed, it goes on with the first step above this share."""

        def change(rollout: Rollout) -> dict[str, Any]:
            _refuse_unless_shifting(rollout)
            if (rollout.paused, rollout.weight) == (BY_HAND, weight):
                return {}
            now = self._clock.now()
            return {
                "paused": BY_HAND,
                "step": rollout.plan.step_at(weight),
                "steps": (*close_step(rollout, now), StepRecord(weight=weight, since=now)),
            }

        await self._change(Rollout, rollout_id, tell_who(f"set to {weight:g}%", by, reason), change)

    async def _change(
        self, kind: type[T], record_id: str, text: str, change: Callable[[T], dict[str, Any]]
    ) -> None:
        while True:
            record = await self._store.get(kind, record_id)
            try:
                await self._ledger.move(record, text, **change(record))
                return
            except StaleRecord:  # it has moved meanwhile: look again
                continue


def close_step(rollout: Rollout, now: float, **found: Any) -> tuple[StepRecord, ...]:
    """The steps so far, the last one ended."""
    if not rollout.steps or rollout.steps[-1].until is not None:
        return rollout.steps
    ended = rollout.steps[-1].model_copy(update={"until": now, **found})
    return (*rollout.steps[:-1], ended)


def cut_bake_short(ledger: Ledger, baking: Rollout) -> Update[Rollout]:
    """Who rolls on has seen enough of what users have now. To be applied with the next rollout's record."""
    return ledger.moved(
        baking,
        "its bake is cut short",
        phase=RolloutPhase.SUCCEEDED,
        paused=None,
        steps=close_step(baking, ledger.clock.now()),
    )


def _is_overdue(rollout: Rollout, now: float) -> bool:
    """Whether its step, or its bake, is extended for want of evidence."""
    if rollout.phase is RolloutPhase.BAKING:
        return rollout.bake_until is not None and now >= rollout.bake_until
    return bool(rollout.steps) and now >= rollout.steps[-1].since + rollout.plan.hold_of(rollout.step)


def _refuse_ended(rollout: Rollout) -> None:
    if rollout.phase.terminal or rollout.phase is RolloutPhase.ABORTING:
        raise AlreadyFinished(f"rollout {rollout.id} has ended already ({rollout.phase})")
    if rollout.phase.switched:
        raise AlreadyFinished(
            f"rollout {rollout.id} has switched already", hint="POST /admin/rollback goes back"
        )


def _refuse_unless_shifting(rollout: Rollout) -> None:
    _refuse_ended(rollout)
    if rollout.phase is not RolloutPhase.SHIFTING:
        raise NotShifting(
            f"rollout {rollout.id} is still {rollout.phase}: its candidate has no share of the traffic yet",
            hint="wait until it is shifting, or abort it",
        )
