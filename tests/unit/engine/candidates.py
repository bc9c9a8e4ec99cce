"""Versions to be judged, and what the gates said of them."""

from typing import Any

from router.core.gates import GatePlan, GateResult
from router.core.models import Rollout
from tests.unit.engine.yard import EXAMPLE, Yard

DOUBLE = {"inputs": [{"name": "age", "type": "double"}], "outputs": [{"type": "double"}]}
WIDER = {"inputs": [*DOUBLE["inputs"], {"name": "sex", "type": "string", "required": False}]} | {
    "outputs": DOUBLE["outputs"]
}
RENAMED = {"inputs": [{"name": "years", "type": "double"}], "outputs": [{"type": "double"}]}


def add_version(
    yard: Yard, signature: dict[str, Any] | None = DOUBLE, run_id: str | None = None, example: bytes = EXAMPLE
) -> int:
    return yard.registry.add_version("Iris", run_id, signature=signature, input_example=example).version


async def add_run(yard: Yard, training_id: str, **metrics: float) -> str:
    run_id = await yard.registry.create_run("iris", training_id, {})
    yard.registry.log_metrics(run_id, metrics)
    return run_id


async def add_measured(yard: Yard, **metrics: float) -> int:
    return add_version(yard, run_id=await add_run(yard, yard.ids.new("trn"), **metrics))


def plan(**fields: object) -> GatePlan:
    return GatePlan.model_validate(fields)


def gate(rollout: Rollout, name: str) -> GateResult:
    return next(each for each in rollout.gates if each.name == name)


async def tags(yard: Yard, version: int) -> dict[str, str]:
    return (await yard.registry.version("Iris", version)).tags
