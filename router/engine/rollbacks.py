"""What a rollback goes back to, as a rollout of its own. People ask for one, and a watch that fails does."""

from dataclasses import dataclass

from router.core.errors import NothingToRollBackTo
from router.core.models import Endpoint, EndpointPhase, Rollout, RolloutPhase, Server
from router.core.strategies import AnalysisPlan, Strategy
from router.core.traffic import Upstream
from router.engine.context import Context
from router.engine.holding import find_holder
from router.engine.servers import SPARE, Servers
from router.stores.base import Change

# Ends of a rollout that speak against its server, as an abort does not.
FOUND_WORSE = frozenset({"analysis_failed", "candidate_died"})
# What it goes back to has served already: nobody waits, and no watch sends it forward again.
AT_ONCE = Strategy(bake=0, if_tight="replace", analysis=AnalysisPlan(enabled=False))


@dataclass(frozen=True)
class RollbackRequest:
    endpoint: str
    requested_by: str | None = None
    wait_ready_seconds: float | None = None
    serve_image: str | None = None
    reason: str | None = None


class Rollbacks:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._servers = servers

    async def draft(self, wanted: RollbackRequest) -> tuple[Rollout, list[Change]]:
        """The record, and the change that pushes a running rollout aside. Under the endpoint's lock.

        Raises NothingToRollBackTo.
        """
        context, image = self._context, wanted.serve_image
        holder = await find_holder(context.store, wanted.endpoint)
        target = await self._find_target(wanted.endpoint, holder)
        now = context.clock.now()
        changed_image = image is not None and image != target.serve_image
        rollout = Rollout(
            id=context.ids.new("rol"),
            created_at=now,
            updated_at=now,
            entered={str(RolloutPhase.PENDING): now},
            endpoint=wanted.endpoint,
            kind="rollback",
            plan=AT_ONCE,
            model_name=target.model_name,
            version=target.version,
            run_id=target.run_id,
            ref=str(target.version),
            serve_image=image or target.serve_image,
            serve_digest=None if changed_image else target.serve_digest,
            server_id=None if changed_image else target.id,
            preempts=holder.id if holder else None,
            # The one pushed aside has stopped it, or is about to, to make room.
            replaces=target.id if holder and holder.replaces == target.id else None,
            ready_deadline=now + (wanted.wait_ready_seconds or context.policy.health_timeout),
            requested_by=wanted.requested_by,
            reason=wanted.reason,
        )
        if holder is None:
            return rollout, []
        return rollout, [context.ledger.moved(holder, f"pushed aside by {rollout.id}", preempted=True)]

    async def _find_target(self, endpoint: str, holder: Rollout | None) -> Server:
        """The server that users had before this one; during a rollout, before that rollout.

        Not from before the endpoint was removed and added again: that was another one.
        """
        active = (await self._context.proxy.read_traffic(endpoint)).active
        nothing = NothingToRollBackTo(
            f"endpoint {endpoint!r} has no earlier server to go back to; nothing was changed",
            hint="POST /admin/roll starts any version by its number",
        )
        if active is None:
            raise nothing
        current = (active.model_name, active.model_version, active.serve_digest)
        if holder is not None and (_would_change(holder, active) or _would_stay(holder, active)):
            return await self._context.store.get(Server, active.server_id)
        for spare in reversed(await self._servers.live(endpoint)):
            if spare.phase in SPARE and spare.id != active.server_id and await self.may_serve_again(spare):
                return spare
        known = await self._context.store.get(Endpoint, endpoint)
        since = known.entered.get(str(EndpointPhase.OPEN), 0.0)
        for rollout in await self._context.store.find(
            Rollout, endpoint=endpoint, newest_first=True, limit=100
        ):
            if rollout.previous_server_id is None or rollout.created_at < since:
                continue
            server = await self._context.store.get(Server, rollout.previous_server_id)
            differs = (server.model_name, server.version, server.serve_digest) != current
            if differs and not await self.has_failed(server):
                return server
        raise nothing

    async def may_serve_again(self, spare: Server) -> bool:
        """Whether users have had it, not only a share of them, and nothing was found against it."""
        rollout = await self._find_rollout(spare)
        if rollout is None:
            return True
        had_all = rollout.kind == "rollback" or str(RolloutPhase.PROMOTING) in rollout.entered
        return had_all and not _speaks_against_it(rollout)

    async def has_failed(self, server: Server) -> bool:
        """Whether a watch has found it worse than what users had: then nobody goes back to it."""
        rollout = await self._find_rollout(server)
        return rollout is not None and _speaks_against_it(rollout)

    async def _find_rollout(self, server: Server) -> Rollout | None:
        """That gave it the traffic, or the one before it; None: it was found serving."""
        while server.rollout_id is None:  # the supervisor launched it in place of a dead one
            if server.replaces is None:
                return None
            server = await self._context.store.get(Server, server.replaces)
        return await self._context.store.get(Rollout, server.rollout_id)


def _would_change(holder: Rollout, active: Upstream) -> bool:
    """Whether it brings what users do not get, or no more, if its server has died. Then they are back."""
    serves = active.server_id == holder.server_id or (holder.phase.switched and holder.is_served_by(active))
    return holder.kind == "roll" and not serves


def _would_stay(holder: Rollout, active: Upstream) -> bool:
    """Whether it is a rollback, aborted by now, to what users had all the while."""
    untouched = str(RolloutPhase.SHIFTING) not in holder.entered and not holder.phase.switched
    return holder.kind == "rollback" and untouched and holder.server_id == active.server_id


def _speaks_against_it(rollout: Rollout) -> bool:
    return rollout.failure is not None and rollout.failure.code in FOUND_WORSE
