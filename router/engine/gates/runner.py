"""Judges a candidate by its plan: each gate under its deadline, the verdicts also as tags on the version.

The tags are for people who look at MLflow; what counts is the rollout's record.
"""

from functools import partial

from router.core.errors import SwitchyardError
from router.core.gates import PROBE, GatePlan, GateResult
from router.core.models import Rollout, RolloutPhase, Server
from router.core.verdicts import Verdict
from router.engine.context import Context
from router.engine.gates.base import Case, Gate, Ruling
from router.engine.gates.challenge import ChallengeGate
from router.engine.gates.metric import MetricGate
from router.engine.gates.probe import judge_probe
from router.engine.gates.signature import SignatureGate
from router.engine.probing import Proof
from router.engine.racing import race

RETRY_SECONDS = 1.0
TAG = "switchyard.gate."
TAGGED_REASON = 1000  # characters


def make_gates(plan: GatePlan) -> list[Gate]:
    gates: list[Gate] = [] if plan.signature is False else [SignatureGate(any_model=plan.signature is True)]
    if plan.metric:
        gates.append(MetricGate(plan.metric))
    if plan.challenge is not None:
        gates.append(ChallengeGate(plan.challenge))
    return gates


class GateRunner:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def judge(self, rollout: Rollout, candidate: Server) -> tuple[GateResult, ...]:
        """What each gate said: all of them, so that whoever mends the model knows all of it.

        None for a rollback: what it goes back to has served already.
        """
        if rollout.kind == "rollback":
            return ()
        context = self._context
        active = (await context.proxy.read_traffic(rollout.endpoint)).active
        champion = await context.store.get(Server, active.server_id) if active else None
        case = Case(
            rollout=rollout,
            candidate=candidate,
            champion=champion,
            registry=context.registry,
            prober=context.prober,
            clock=context.clock,
            challenges=context.policy.challenges,
        )
        results = []
        for gate in make_gates(rollout.gate_plan):
            started = context.clock.now()
            ruling = await self._rule_in_time(gate, case, rollout.gate_plan.deadline)
            results.append(self._record(gate.name, ruling, started))
        return tuple(results)

    async def judge_probe(self, rollout: Rollout, candidate: Server, proof: Proof) -> GateResult:
        """A rollback goes to what users had: whatever shape its answers have, they know it."""
        if rollout.kind == "rollback":
            ruling = Ruling(Verdict.PASSED, "it answers, and has served before", proof.evidence)
        else:
            ruling = await judge_probe(self._context.registry, candidate, proof)
        return self._record(PROBE, ruling, rollout.entered[str(RolloutPhase.PROBING)])

    def fail_probe(self, rollout: Rollout, reason: str) -> GateResult:
        return self._record(
            PROBE, Ruling(Verdict.FAILED, reason, {}), rollout.entered[str(RolloutPhase.PROBING)]
        )

    async def tag_version(self, rollout: Rollout, gates: tuple[GateResult, ...]) -> str | None:
        """A warning if the registry did not take the tags: neither switch nor abort waits for them."""
        tags = {f"{TAG}{gate.name}": str(gate.verdict) for gate in gates}
        tags |= {f"{TAG}{gate.name}.reason": gate.reason[:TAGGED_REASON] for gate in gates}
        try:
            await self._context.registry.set_version_tags(rollout.model_name, rollout.version, tags)
        except SwitchyardError as error:
            return f"the gates' verdicts are not among the version's tags: {error.message}"
        return None

    def _record(self, name: str, ruling: Ruling, started: float) -> GateResult:
        return GateResult(
            name=name,
            verdict=ruling.verdict,
            reason=ruling.reason,
            evidence=ruling.evidence,
            started=started,
            ended=self._context.clock.now(),
        )

    async def _rule_in_time(self, gate: Gate, case: Case, seconds: float) -> Ruling:
        problems: list[str] = []

        async def give_up() -> Ruling:
            await self._context.clock.sleep(seconds)
            last = f": {problems[-1]}" if problems else ""
            return Ruling(Verdict.INCONCLUSIVE, f"no verdict within {seconds:g} s{last}")

        return await race(partial(self._rule, gate, case, problems), give_up)

    async def _rule(self, gate: Gate, case: Case, problems: list[str]) -> Ruling:
        while True:
            try:
                return await gate.judge(case)
            except SwitchyardError as error:
                if not error.retryable:
                    return Ruling(Verdict.INCONCLUSIVE, f"it could not be judged: {error.message}")
                problems.append(error.message)
                await self._context.clock.sleep(RETRY_SECONDS)
