"""Carries out what `decide_rollout` names. Each action may be repeated after a crash.

Everything slow (launch, probe) happens outside the endpoint's lock; the switch itself happens inside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from router.core.actions import (
    AbortRollout,
    FinishRollout,
    JudgeCandidate,
    LaunchCandidate,
    PrepareCandidate,
    ProbeCandidate,
    PromoteVersion,
    PutCandidateAway,
    RecordShift,
    RolloutAction,
    ShiftTraffic,
    Wait,
)
from router.core.errors import (
    CandidateUnhealthy,
    NoRoomForCandidate,
    StaleRecord,
    StorageFull,
    SwitchyardError,
)
from router.core.models import Failure, Rollout, RolloutPhase, Server, ServerPhase
from router.core.traffic import Traffic
from router.engine.aliasing import sync_alias
from router.engine.context import Context, upstream_of
from router.engine.probing import ProbeFailed
from router.engine.servers import Servers
from router.runtimes.base import Image
from router.stores.base import Change

PING_SECONDS = 2.0
FRESH_SECONDS = 1.0  # for so long an answered ping counts as just now


class RolloutActions:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers

    async def carry_out(self, rollout: Rollout, action: RolloutAction) -> None:
        match action:
            case PrepareCandidate():
                await self._prepare(rollout)
            case LaunchCandidate():
                await self._launch(rollout)
            case ProbeCandidate():
                await self._probe(rollout)
            case JudgeCandidate():
                await self._ledger.move(rollout, "the candidate passed", phase=RolloutPhase.SHIFTING)
            case ShiftTraffic():
                await self._shift(rollout)
            case RecordShift():
                await self._record_shift(rollout)
            case PromoteVersion():
                await sync_alias(self._context, rollout.endpoint)
                await self._ledger.move(rollout, "the alias follows", phase=RolloutPhase.BAKING)
            case FinishRollout():
                await self._ledger.move(rollout, "rollout succeeded", phase=RolloutPhase.SUCCEEDED)
            case AbortRollout(outcome, failure):
                await self._abort(rollout, outcome, failure)
            case PutCandidateAway():
                await self._put_away(rollout)
            case Wait():
                pass

    async def fail(self, rollout: Rollout, error: SwitchyardError) -> None:
        """An action cannot succeed however often it is tried."""
        if rollout.phase.switched:
            warnings = (*rollout.warnings, f"after the switch: {error.message}")
            await self._ledger.move(rollout, error.message, phase=RolloutPhase.SUCCEEDED, warnings=warnings)
        elif rollout.phase is RolloutPhase.ABORTING:
            await self._ledger.move(rollout, error.message, phase=rollout.outcome or RolloutPhase.FAILED)
        else:
            await self._abort(rollout, RolloutPhase.FAILED, Failure.of(error))

    async def _prepare(self, rollout: Rollout) -> None:
        async with self._context.traffic_locks[rollout.endpoint]:
            traffic = await self._context.proxy.read_traffic(rollout.endpoint)
            if rollout.server_id is not None:
                if traffic.active is not None and traffic.active.server_id == rollout.server_id:
                    await self._ledger.move(
                        rollout, "it already has the traffic", phase=RolloutPhase.SHIFTING
                    )
                    return
                previous = traffic.active.server_id if traffic.active else None
                if await self._take_up_warm(rollout, rollout.server_id, previous):
                    return
        if rollout.serve_digest is not None:
            image = Image(rollout.serve_image, rollout.serve_digest)
        else:
            with giving_up_without_room():
                image = await self._context.runtime.resolve_image(rollout.serve_image)
        server = await self._servers.draft(
            endpoint=rollout.endpoint,
            model_name=rollout.model_name,
            version=rollout.version,
            run_id=rollout.run_id,
            image=image,
            rollout_id=rollout.id,
        )
        retired = await self._servers.retire_spare(rollout.endpoint, f"rollout {rollout.id} needs its slot")
        moved = self._ledger.moved(
            rollout,
            f"candidate {server.name} takes the {server.slot} slot",
            phase=RolloutPhase.LAUNCHING,
            server_id=server.id,
            serve_digest=image.digest,
        )
        await self._ledger.apply(moved, self._ledger.opened(server, f"server {server.name}"), *retired)

    async def _take_up_warm(self, rollout: Rollout, server_id: str, previous: str | None) -> bool:
        """The server to go back to, if it still runs, needs no launch: whether it could be taken.

        Nor a proof: it has answered users, and `/ping` a moment ago. A fast way back asks no more than that.
        """
        server = await self._context.store.get(Server, server_id)
        state = await self._context.runtime.inspect(server_id)
        usable = {ServerPhase.READY, ServerPhase.RETIRING, ServerPhase.WARM}
        if server.phase not in usable or server.address is None or state is None or not state.running:
            return False
        try:
            await self._context.prober.ping(server.address, PING_SECONDS)  # the endpoint's lock is held
        except ProbeFailed:
            return False
        await self._ledger.apply(
            self._ledger.moved(
                rollout,
                f"server {server.name} is still warm",
                phase=RolloutPhase.SHIFTING,
                previous_server_id=previous,
                evidence=rollout.evidence | {"probe": {"ping": 200, "served_before": True}},
            ),
            self._ledger.moved(
                server,
                f"taken up by rollback {rollout.id}",
                phase=ServerPhase.STARTING,
                rollout_id=rollout.id,
                warm_until=None,
                drain_deadline=None,
            ),
        )
        return True

    async def _launch(self, rollout: Rollout) -> None:
        server = await self._candidate(rollout)
        with giving_up_without_room():
            launched = await self._servers.launch(server)
        moved = self._ledger.moved(
            rollout,
            f"candidate {server.name} runs at {launched.after.address}",
            phase=RolloutPhase.PROBING,
        )
        await self._ledger.apply(moved, launched)

    async def _probe(self, rollout: Rollout) -> None:
        server = await self._candidate(rollout)
        try:
            proof, body = await self._servers.prove(server, rollout.ready_deadline)
        except ProbeFailed as failed:
            raise CandidateUnhealthy(
                f"the candidate for {rollout.model_uri} did not prove itself: {failed};"
                " it got no traffic and the active server was left as it was",
                hint="the end of its log is in `logs_tail`",
            ) from failed
        moved = self._ledger.moved(
            rollout,
            "the candidate answers",
            phase=RolloutPhase.GATING,
            warnings=rollout.warnings + proof.warnings,
            evidence=rollout.evidence | {"probe": proof.evidence},
        )
        kept: list[Change] = []
        if body is not None and server.probe_body != body:
            kept.append(self._ledger.moved(server, probe_body=body))
        await self._ledger.apply(moved, *kept)

    async def _shift(self, rollout: Rollout) -> None:
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
            await self._record_shift(rollout)

    def _was_taken_up_just_now(self, rollout: Rollout) -> bool:
        """A warm server answers `/ping` when it is taken up; nothing comes between that and the switch."""
        at_once = str(RolloutPhase.GATING) not in rollout.entered
        return at_once and self._context.clock.now() - rollout.entered[rollout.phase] < FRESH_SECONDS

    async def _still_answers(self, rollout: Rollout, server: Server) -> bool:
        """If not, it has to prove itself again: one that is dying is found dead by that, its log whole."""
        assert server.address is not None
        try:
            left = max(PING_SECONDS, rollout.ready_deadline - self._context.clock.now())
            await self._context.prober.ping(server.address, left)
        except ProbeFailed as failed:
            text = f"the candidate stopped answering just before the switch: {failed}"
            await self._ledger.move(rollout, text, phase=RolloutPhase.PROBING)
            return False
        return True

    async def _intend_shift(self, rollout: Rollout, previous: str | None) -> Rollout:
        """Raises StaleRecord if an abort or a preemption came in the meantime."""
        if rollout.previous_server_id != previous:
            return await self._ledger.move(rollout, previous_server_id=previous)
        stored = await self._context.store.get(Rollout, rollout.id)
        if stored.revision != rollout.revision:
            raise StaleRecord(f"rollout {rollout.id} has moved since it was read")
        return stored

    async def _record_shift(self, rollout: Rollout) -> None:
        server = await self._candidate(rollout)
        changes: list[Change] = []
        if server.phase is not ServerPhase.READY:
            changes.append(self._servers.has_traffic(server))
        if rollout.previous_server_id not in (None, rollout.server_id):
            previous = await self._context.store.get(Server, str(rollout.previous_server_id))
            if previous.phase is ServerPhase.READY:
                changes.append(self._servers.lost_traffic(previous))
        switched = self._ledger.moved(
            rollout,
            f"users get {rollout.model_uri} from {server.name}",
            phase=RolloutPhase.PROMOTING,
        )
        await self._ledger.apply(switched, *changes)

    async def _abort(self, rollout: Rollout, outcome: RolloutPhase, failure: Failure | None) -> None:
        tail = ""
        if rollout.server_id is not None and rollout.phase is not RolloutPhase.PENDING:
            tail = await self._context.runtime.logs(rollout.server_id, self._context.policy.log_tail_bytes)
        await self._ledger.move(
            rollout,
            failure.message if failure else "a rollback takes over",
            phase=RolloutPhase.ABORTING,
            outcome=outcome,
            failure=failure,
            logs_tail=tail or None,
        )

    async def _put_away(self, rollout: Rollout) -> None:
        """The candidate itself is the supervisor's: nobody wants it any more, so it drains and stops."""
        assert rollout.outcome is not None
        await self._ledger.move(rollout, f"rollout {rollout.outcome}", phase=rollout.outcome)

    async def _candidate(self, rollout: Rollout) -> Server:
        assert rollout.server_id is not None
        return await self._context.store.get(Server, rollout.server_id)


@contextmanager
def giving_up_without_room() -> Iterator[None]:
    """A caller waits for the switch: he is told that there is no room, and not kept until there is."""
    try:
        yield
    except StorageFull as full:
        message = f"{full.message}; the candidate got no traffic and the active server was left as it was"
        raise NoRoomForCandidate(message, hint=full.hint) from full
