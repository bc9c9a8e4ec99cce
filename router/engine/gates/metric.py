"""Bounds on what the trainer reported of its run, on their own and against the champion's."""

import math
from collections.abc import Mapping
from typing import Any

from router.core.gates import MetricBound
from router.core.models import tell_number
from router.core.verdicts import Verdict
from router.engine.gates.base import Case, Ruling
from router.registries.base import Registry, Run

Found = tuple[Verdict, str]
WORST_FIRST = (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.PASSED)


class MetricGate:
    name = "metric"

    def __init__(self, bounds: Mapping[str, MetricBound]) -> None:
        self._bounds = bounds

    async def judge(self, case: Case) -> Ruling:
        run = await _find_run(case.registry, case.candidate.run_id)
        if run is None:
            return Ruling(Verdict.FAILED, f"{case.rollout.model_uri} has no run, so no metrics")
        compared = any(bound.better_than for bound in self._bounds.values())
        champion = case.champion if compared else None
        theirs = await _find_run(case.registry, champion.run_id) if champion else None
        found: list[Found] = []
        evidence: dict[str, Any] = {"run_id": run.run_id, "metrics": {}}
        if champion is not None:
            model_uri = f"models:/{champion.model_name}/{champion.version}"
            evidence["champion"] = {"model_uri": model_uri, "run_id": champion.run_id}
        for name, bound in self._bounds.items():
            value = run.metrics.get(name)
            best = theirs.metrics.get(name) if theirs else None
            ruled = [*_check_bounds(name, value, bound)]
            if bound.better_than and value is not None and math.isfinite(value):
                ruled.append(_compare(name, value, best, bound, _why_not_to_compare(case)))
            found += ruled
            evidence["metrics"][name] = {
                "value": tell_number(value),
                "champion": tell_number(best),
                "bound": bound.model_dump(exclude_none=True),
            }
        verdict = min((each for each, _ in found), key=WORST_FIRST.index)
        return Ruling(verdict, "; ".join(text for each, text in found if each is verdict), evidence)


def _why_not_to_compare(case: Case) -> str | None:
    champion, candidate = case.champion, case.candidate
    if champion is None:
        return "no champion is there to compare it with"
    same = (champion.model_name, champion.version) == (candidate.model_name, candidate.version)
    return "it is the champion's own version: nothing is to be compared" if same else None


async def _find_run(registry: Registry, run_id: str | None) -> Run | None:
    return await registry.run(run_id) if run_id is not None else None


def _check_bounds(name: str, value: float | None, bound: MetricBound) -> list[Found]:
    if value is None:
        return [(Verdict.FAILED, f"the run has no metric `{name}`")]
    if not math.isfinite(value):
        return [(Verdict.FAILED, f"`{name}` is {value}")]
    found = []
    if bound.max is not None:
        found.append(_rule(value <= bound.max, f"`{name}` is {value:g}, at most {bound.max:g} is allowed"))
    if bound.min is not None:
        found.append(_rule(value >= bound.min, f"`{name}` is {value:g}, at least {bound.min:g} is wanted"))
    return found


def _compare(name: str, value: float, best: float | None, bound: MetricBound, without: str | None) -> Found:
    """`without`: why it passes without a comparison."""
    if without is not None:
        return Verdict.PASSED, f"`{name}` is {value:g}, and {without}"
    if best is None or not math.isfinite(best):
        what = "no" if best is None else str(best)
        return Verdict.INCONCLUSIVE, f"the champion's run has {what} `{name}` to compare {value:g} with"
    gain = best - value if bound.falls else value - best
    text = f"`{name}` is {value:g}, the champion's {best:g}"
    if bound.tolerance is None and bound.relative_tolerance is None:
        return _rule(gain > 0, f"{text}; it must be better")
    relative = bound.relative_tolerance
    allowed = abs(best) * relative if relative is not None else bound.tolerance or 0.0
    return _rule(gain >= -allowed, f"{text}; it may be worse by {allowed:g}")


def _rule(holds: bool, text: str) -> Found:
    return Verdict.PASSED if holds else Verdict.FAILED, text
