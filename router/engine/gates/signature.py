"""The candidate's signature against the active one's: what clients send and read today must still fit."""

from typing import Any

from router.core.signatures import Spec, UnreadableSignature, compare_signatures
from router.core.verdicts import Verdict
from router.engine.gates.base import Case, Ruling

SHOWN = 20  # differences


class SignatureGate:
    name = "signature"

    def __init__(self, *, any_model: bool) -> None:
        self._any_model = any_model

    async def judge(self, case: Case) -> Ruling:
        if case.champion is None:
            return Ruling(Verdict.PASSED, "no active model is there to compare with")
        if not self._any_model and case.champion.model_name != case.candidate.model_name:
            said = f"another model, {case.champion.model_name}, is active; `signature: true` compares them"
            return Ruling(Verdict.PASSED, said)
        candidate, active = (
            case.rollout.model_uri,
            f"models:/{case.champion.model_name}/{case.champion.version}",
        )
        evidence: dict[str, Any] = {"candidate": candidate, "active": active}
        theirs = await case.registry.signature(case.champion.model_name, case.champion.version)
        if theirs is None:
            return Ruling(Verdict.PASSED, "the active model has no signature that could be broken", evidence)
        ours = await case.registry.signature(case.candidate.model_name, case.candidate.version)
        if ours is None:
            return Ruling(Verdict.FAILED, "it has no signature, and the active model has one", evidence)
        return _compare(theirs, ours, evidence)


def _compare(active: Spec, candidate: Spec, evidence: dict[str, Any]) -> Ruling:
    try:
        compared = compare_signatures(active, candidate)
    except UnreadableSignature as error:
        return Ruling(Verdict.INCONCLUSIVE, f"a signature cannot be read: {error}", evidence)
    evidence |= {"breaks": compared.breaks[:SHOWN], "notes": compared.notes[:SHOWN]}
    if compared.breaks:
        more = len(compared.breaks) - SHOWN
        told = "; ".join(compared.breaks[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return Ruling(Verdict.FAILED, told, evidence)
    return Ruling(Verdict.PASSED, "; ".join(compared.notes[:SHOWN]) or "nothing differs", evidence)
