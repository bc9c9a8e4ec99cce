"""Carries out what `decide_rollout` names. Each action may be repeated after a crash.

Everything slow (launch, probe) happens outside the endpoint's lock. Traffic is `shifting`'s.
"""

from functools import partial
from typing import Any

from router.core.actions import (
    AbortRollout,
    FinishRollout,
    JudgeCandidate,
    LaunchCandidate,
    PrepareCandidate,
    ProbeCandidate,
    PromoteVersion,
    PutCandidateAway,
    RolloutAction,
    StopActive,
    Wait,
)
from router.core.errors import CandidateUnhealthy, NoMemoryForCandidate, SwitchyardError
from router.core.gates import GateResult, find_objections
from router.core.models import Failure, Rollout, RolloutPhase, Server
from router.core.traffic import Traffic
from router.core.verdicts import Judgement, Verdict
from router.engine.aliasing import sync_alias
from router.engine.context import Context, giving_up_without_room
from router.engine.gates.runner import GateRunner
from router.engine.probing import ProbeFailed
from router.engine.racing import race
from router.engine.room import Room
from router.engine.servers import HAD_TRAFFIC, Servers
from router.engine.shifting import Shifting
from router.engine.steering import close_step
from router.engine.telling import telling
from router.engine.ways_back import WaysBack
from router.stores.base import Change


class RolloutActions:
    def __init__(self, context: Context, servers: Servers) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._shifting = Shifting(context, servers)
        self._ways_back = WaysBack(context)
        self._room = Room(context, servers)
        self._gates = GateRunner(context)

    async def carry_out(
        self, rollout: Rollout, action: RolloutAction, finding: Judgement | None = None
    ) -> str | None:
        """The id of a rollout that has to be begun now, if any."""
        match action:
            case PrepareCandidate():
                await self._prepare(rollout)
            case StopActive():
                await self._stop_active(rollout)
            case LaunchCandidate():
                await self._launch(rollout)
            case ProbeCandidate():
                await self._probe(rollout)
            case JudgeCandidate():
                await self._judge(rollout)
            case PromoteVersion():
                await sync_alias(self._context, rollout.endpoint)
                await self._ledger.move(rollout, "the alias follows", phase=RolloutPhase.BAKING)
            case FinishRollout(warning):
                await self._finish(rollout, warning, finding)
            case AbortRollout(outcome, failure):
                await self._abort(rollout, outcome, failure, finding)
            case PutCandidateAway():
                await self._put_away(rollout)
            case Wait():
                pass
            case _:
                return await self._shifting.carry_out(rollout, action, finding)
        return None

    async def fail(self, rollout: Rollout, error: SwitchyardError, finding: Judgement | None) -> None:
        """An action cannot succeed however often it is tried."""
        if rollout.phase.switched:
            # Users have it: only the alias is left behind, and the watch goes on.
            changes: dict[str, Any] = {"phase": RolloutPhase.BAKING}
            if rollout.phase is not RolloutPhase.PROMOTING:
                steps = close_step(rollout, self._context.clock.now(), finding=finding)
                changes = {"phase": RolloutPhase.SUCCEEDED, "steps": steps}
            warnings = (*rollout.warnings, f"after the switch: {error.message}")
            await self._ledger.move(rollout, error.message, warnings=warnings, **changes)
        elif rollout.phase is RolloutPhase.ABORTING:
            await self._ledger.move(rollout, error.message, phase=rollout.outcome or RolloutPhase.FAILED)
        else:
            await self._abort(rollout, RolloutPhase.FAILED, Failure.of(error), finding)

    async def _prepare(self, rollout: Rollout) -> None:
        if rollout.kind == "rollback":
            left = await self._ways_back.take_up(rollout)
            if left is None:
                return
            rollout = left
        resolve = self._context.runtime.resolve_image
        with giving_up_without_room():
            image = await telling(
                self._ledger, rollout, partial(resolve, rollout.serve_image, rollout.serve_digest)
            )
        traffic = await self._context.proxy.read_traffic(rollout.endpoint)  # a pull may have taken minutes
        room = await self._make_room(rollout, traffic)
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
            ready_deadline=rollout.ready_deadline + self._waited(rollout),
            **room,
        )
        await self._ledger.apply(moved, self._ledger.opened(server, f"server {server.name}"), *retired)

    def _waited(self, rollout: Rollout) -> float:
        """Seconds before anything of its own began: for a pull, or for a runtime that was away."""
        return max(0.0, self._context.clock.now() - rollout.entered[str(RolloutPhase.PENDING)])

    async def _make_room(self, rollout: Rollout, traffic: Traffic) -> dict[str, Any]:
        """What the record says if the active server has to go first. Raises NoMemoryForCandidate."""
        shortage = await self._room.find_shortage(rollout.endpoint, traffic)
        if shortage is None or traffic.active is None:
            return {}
        if rollout.plan.if_tight == "refuse":
            raise NoMemoryForCandidate(
                f"{shortage}; nothing was started and the active server was left as it was",
                hint="free some, or roll with `if_tight: replace`, which stops the active server first;"
                f" {shortage.expected_gap}",
            )
        plan = rollout.gate_plan
        if plan.challenge is not None and plan.inconclusive == "fail" and not rollout.forced:
            raise NoMemoryForCandidate(
                f"{shortage}; a challenge needs both servers at once, so with the active one stopped first it"
                " could not pass; nothing was started and the active server was left as it was",
                hint="free some memory, or roll with `gates: {inconclusive: pass}`",
            )
        warning = f"{shortage}: the active server is stopped first; {shortage.expected_gap}"
        return {"replaces": traffic.active.server_id, "warnings": (*rollout.warnings, warning)}

    async def _stop_active(self, rollout: Rollout) -> None:
        """It finishes what it has. If the candidate fails, the supervisor brings it back."""
        assert rollout.replaces is not None
        began = self._context.clock.now()
        await self._context.runtime.stop(rollout.replaces, self._context.policy.stop_grace)
        took = max(0.0, self._context.clock.now() - began)  # the clock may be set
        await self._ledger.move(rollout, f"the active server has stopped in {took:.1f} s", stop_seconds=took)

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
            unhealthy = CandidateUnhealthy(
                f"the candidate for {rollout.model_uri} did not prove itself: {failed};"
                " it got no traffic and the active server was left as it was",
                hint="the end of its log is in `logs_tail`",
            )
            gates = (self._gates.fail_probe(rollout, str(failed)),)
            untold = await self._gates.tag_version(rollout, gates)
            warnings = (*rollout.warnings, untold) if untold else rollout.warnings
            await self._abort(
                rollout, RolloutPhase.FAILED, Failure.of(unhealthy), gates=gates, warnings=warnings
            )
            return
        moved = self._ledger.moved(
            rollout,
            "the candidate answers",
            phase=RolloutPhase.GATING,
            warnings=rollout.warnings + proof.warnings,
            evidence=rollout.evidence | {"probe": proof.evidence},
            gates=(await self._gates.judge_probe(rollout, server, proof),),
        )
        kept: list[Change] = []
        if body is not None and server.probe_body != body:
            kept.append(self._ledger.moved(server, probe_body=body))
        await self._ledger.apply(moved, *kept)

    async def _judge(self, rollout: Rollout) -> None:
        gates = rollout.gates + await self._ask_gates(rollout)
        untold = await self._gates.tag_version(rollout, gates)
        warnings = (*rollout.warnings, untold) if untold else rollout.warnings
        objections = find_objections(gates, rollout.gate_plan)
        if objections and not rollout.forced:
            await self._abort(
                rollout, RolloutPhase.FAILED, _held_back(rollout, objections), gates=gates, warnings=warnings
            )
            return
        text = "the candidate passed"
        if objections:
            who, told = rollout.requested_by or "somebody", "; ".join(map(str, objections))
            text = f"{who} has overridden gates ({rollout.reason}): {told}"
            warnings = (*warnings, text)
        doubts = [gate for gate in gates if gate.verdict is Verdict.INCONCLUSIVE and gate not in objections]
        now = self._context.clock.now()
        took = now - rollout.entered[str(RolloutPhase.GATING)]  # was not the candidate's time
        await self._ledger.move(
            rollout,
            text,
            phase=RolloutPhase.SHIFTING,
            gates=gates,
            warnings=(*warnings, *(f"it went on all the same: {gate}" for gate in doubts)),
            ready_deadline=rollout.ready_deadline + took,
        )

    async def _ask_gates(self, rollout: Rollout) -> tuple[GateResult, ...]:
        """Raises CandidateUnhealthy if the candidate ends meanwhile."""
        candidate = await self._candidate(rollout)
        try:
            return await race(
                partial(self._gates.judge, rollout, candidate), partial(self._servers.await_end, candidate.id)
            )
        except ProbeFailed as ended:
            raise CandidateUnhealthy(
                f"the candidate for {rollout.model_uri} did not live to be judged: {ended};"
                " it got no traffic and the active server was left as it was",
                hint="the end of its log is in `logs_tail`",
            ) from ended

    async def _finish(self, rollout: Rollout, warning: str | None, finding: Judgement | None) -> None:
        await self._ledger.move(
            rollout,
            warning or "rollout succeeded",
            phase=RolloutPhase.SUCCEEDED,
            steps=close_step(rollout, self._context.clock.now(), finding=finding),
            warnings=(*rollout.warnings, warning) if warning else rollout.warnings,
        )

    async def _abort(
        self,
        rollout: Rollout,
        outcome: RolloutPhase,
        failure: Failure,
        finding: Judgement | None = None,
        **changes: Any,
    ) -> None:
        """Only a note: whatever takes time comes after the traffic has gone back."""
        await self._ledger.move(
            rollout,
            failure.message,
            phase=RolloutPhase.ABORTING,
            outcome=outcome,
            failure=failure,
            steps=close_step(rollout, self._context.clock.now(), finding=finding),
            **changes,
        )

    async def _put_away(self, rollout: Rollout) -> None:
        """A candidate that users have never got is not kept for a rollback: it drains and stops.

        One without traffic is the supervisor's: nobody wants it any more.
        """
        assert rollout.outcome is not None
        await self._shifting.withdraw(rollout)
        changes: list[Change] = []
        tail = ""
        if rollout.server_id is not None:
            tail = await self._context.runtime.logs(rollout.server_id, self._context.policy.log_tail_bytes)
            server = await self._candidate(rollout)
            switched = str(RolloutPhase.PROMOTING) in rollout.entered
            # The supervisor may have seen that it has no traffic any more, and keep it, before we come here.
            if server.phase in HAD_TRAFFIC and not switched and server.rollout_id == rollout.id:
                changes.append(self._servers.send_away(server, f"rollout {rollout.id} was aborted"))
        changes += await self._tell_who_stays(rollout)
        ended = self._ledger.moved(
            rollout, f"rollout {rollout.outcome}", phase=rollout.outcome, logs_tail=tail or None
        )
        await self._ledger.apply(ended, *changes)

    async def _tell_who_stays(self, back: Rollout) -> list[Change]:
        """The rollout that a rollback pushed aside has said that users get back what they had."""
        if back.preempts is None or str(RolloutPhase.PROMOTING) in back.entered:
            return []
        aside = await self._context.store.get(Rollout, back.preempts)
        active = (await self._context.proxy.read_traffic(back.endpoint)).active
        if active is None or not aside.is_served_by(active):
            return []
        warning = f"the rollback {back.id} ended before its switch: users still have this version"
        return [self._ledger.moved(aside, warning, warnings=(*aside.warnings, warning))]

    async def _candidate(self, rollout: Rollout) -> Server:
        assert rollout.server_id is not None
        return await self._context.store.get(Server, rollout.server_id)


def _held_back(rollout: Rollout, objections: list[GateResult]) -> Failure:
    told = "; ".join(map(str, objections))
    return Failure(
        code="gate_failed",
        message=f"the candidate for {rollout.model_uri} did not pass: {told};"
        " it got no traffic and the active server was left as it was",
        hint="`gates` has the evidence; `force: true` with a `reason` rolls it out all the same",
        status=409,
    )
