"""The probe's answer against what was asked and promised. That it was 200 and finite is known by then.

A candidate that gives no finite answer never gets here, and no word of a person gets it traffic; one that
answers in another shape than it promised may be forced.
"""

from router.core.errors import InvalidRequest
from router.core.models import Server
from router.core.predictions import count_rows, find_misfit
from router.core.signatures import UnreadableSignature
from router.core.verdicts import Verdict
from router.engine.gates.base import Ruling
from router.engine.probing import Proof
from router.registries.base import Registry


async def judge_probe(registry: Registry, server: Server, proof: Proof) -> Ruling:
    """Raises RegistryUnavailable."""
    if proof.asked is None:
        return Ruling(Verdict.PASSED, "only /ping was asked: the model has no input example", proof.evidence)
    try:
        signature = await registry.signature(server.model_name, server.version)
        misfit = find_misfit(proof.asked, proof.answer, signature)
    except (InvalidRequest, UnreadableSignature) as error:
        return Ruling(Verdict.FAILED, str(error), proof.evidence)
    evidence = proof.evidence | {"rows": count_rows(proof.asked)}
    if misfit is not None:
        return Ruling(Verdict.FAILED, misfit, evidence)
    return Ruling(Verdict.PASSED, "it predicts for its input example", evidence)
