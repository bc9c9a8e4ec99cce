"""Where what is serving comes from, followed back link by link: server, rollout, version, run, data.

Some links are the registry's to tell, and it may be away; others may never have been recorded. What cannot be
told is named, with the reason, and the rest is told all the same.
"""

from dataclasses import dataclass, field

from router.core.errors import NotFound, SwitchyardError
from router.core.models import Rollout, RolloutPhase, Server, Training
from router.engine.context import Context
from router.engine.status import Health, Serving
from router.registries.base import ModelVersion, Run

SEARCHED_ROLLOUTS = 200
TRAINING_TAG = "switchyard.training_id"


@dataclass
class Lineage:
    serving: Serving
    promotion: Rollout | None = None  # gave it the traffic
    checked: Rollout | None = None  # proved and judged it: another one, if the promotion was a rollback
    version: ModelVersion | None = None
    run: Run | None = None
    training: Training | None = None
    missing: dict[str, str] = field(default_factory=dict)  # link -> why it cannot be told


async def trace_lineage(context: Context, health: Health, endpoint: str) -> Lineage:
    """Raises UnknownEndpoint."""
    lineage = Lineage(await health.serving(endpoint))
    if lineage.serving.server is None:
        lineage.missing["server"] = "nothing is serving yet"
        return lineage
    await _trace_rollouts(context, lineage, endpoint, lineage.serving.server)
    await _trace_registry(context, lineage, lineage.serving.server)
    await _trace_training(context, lineage)
    return lineage


async def _trace_rollouts(context: Context, lineage: Lineage, endpoint: str, server: Server) -> None:
    try:
        launched = server
        while launched.rollout_id is None and launched.replaces is not None:
            launched = await context.store.get(Server, launched.replaces)
        if launched.rollout_id is None:
            lineage.missing["promotion"] = "it was found serving: the store has no rollout of it"
            return
        lineage.promotion = await context.store.get(Rollout, launched.rollout_id)
    except NotFound as error:
        lineage.missing["promotion"] = error.message
        return
    for rollout in await context.store.find(
        Rollout, endpoint=endpoint, newest_first=True, limit=SEARCHED_ROLLOUTS
    ):
        of_it = (rollout.model_name, rollout.version, rollout.serve_digest) == (
            server.model_name,
            server.version,
            server.serve_digest,
        )
        if of_it and RolloutPhase.SHIFTING in rollout.entered and RolloutPhase.GATING in rollout.entered:
            lineage.checked = rollout
            return
    lineage.missing["gates"] = f"none of the last {SEARCHED_ROLLOUTS} rollouts here has proved this version"


async def _trace_registry(context: Context, lineage: Lineage, server: Server) -> None:
    run_id = server.run_id
    try:
        lineage.version = await context.registry.version(server.model_name, server.version)
        run_id = run_id or lineage.version.run_id
    except NotFound as error:
        lineage.missing["version"] = error.message
    except SwitchyardError as error:
        lineage.missing |= dict.fromkeys(("version", "run", "datasets"), error.message)
        return
    if run_id is None:
        lineage.missing["run"] = "the version names no run"
        return
    try:
        lineage.run = await context.registry.run(run_id)
    except SwitchyardError as error:
        lineage.missing["run"] = error.message
        return
    if lineage.run is None:
        lineage.missing["run"] = f"the registry has no run {run_id} any more"
    elif not lineage.run.datasets:
        lineage.missing["datasets"] = "the run logged none (mlflow.log_input)"


async def _trace_training(context: Context, lineage: Lineage) -> None:
    named = [rollout.training_id for rollout in (lineage.checked, lineage.promotion) if rollout]
    named += [known.tags.get(TRAINING_TAG) for known in (lineage.run, lineage.version) if known]
    training_id = next(filter(None, named), None)
    if training_id is None:
        untold = lineage.missing.get("version")  # whose tags would say
        lineage.missing["training"] = untold or "no training of this router made it, as far as is known"
        return
    try:
        lineage.training = await context.store.get(Training, training_id)
    except NotFound as error:
        lineage.missing["training"] = error.message
