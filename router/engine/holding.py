"""Which rollout holds an endpoint: at most one does, and keeps the others out."""

from router.core.errors import RolloutInProgress
from router.core.models import Rollout, RolloutPhase
from router.stores.base import Store

UNFINISHED = [phase for phase in RolloutPhase if not phase.terminal]


async def find_holder(store: Store, endpoint: str) -> Rollout | None:
    rollouts = await store.find(Rollout, phases=UNFINISHED, endpoint=endpoint)
    return next((rollout for rollout in rollouts if rollout.holds_endpoint), None)


def goes_back(holder: Rollout) -> bool:
    """Whether it is a rollback on its way."""
    wanted = not holder.abort_requested and holder.phase is not RolloutPhase.ABORTING
    return holder.kind == "rollback" and wanted and not holder.phase.switched


def in_progress(holder: Rollout) -> RolloutInProgress:
    return RolloutInProgress(
        f"rollout {holder.id} of {holder.model_uri} is still {holder.phase}; nothing was started",
        hint=f"wait for it, or POST /admin/rollouts/{holder.id}/abort",
        detail={"rollout_id": holder.id},
    )
