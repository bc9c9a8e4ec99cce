"""Serves the configured model at the start, if nothing is serving: a router set up by settings alone."""

import itertools

import structlog

from router.core.errors import RolloutInProgress, SwitchyardError
from router.core.models import Failure, Rollout
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.commands import Caller, Commands, RolloutRequest
from router.engine.context import Context
from router.engine.holding import find_holder

RETRY_SECONDS = (5.0, 15.0, 60.0, 300.0)
FINAL = frozenset({"gate_failed", "rollout_aborted"})  # a judgement, or a person's word
BY_SETTING = Caller(name="DEFAULT_MODEL_NAME")

log = structlog.get_logger()


async def serve_first_model(context: Context, commands: Commands) -> None:
    """Tried until something serves or it is judged: registry, files and images may come after the router."""
    policy = context.policy
    if policy.default_model_name is None:
        return
    wanted = RolloutRequest(policy.default_model_name, policy.default_model_version)
    for tries in itertools.count():
        try:
            if (await context.proxy.read_traffic(DEFAULT_ENDPOINT)).active is not None:
                return
            failure = await _try(context, commands, wanted)
            if failure is not None and failure.code in FINAL:
                return
        except SwitchyardError as error:
            log.warning("cannot serve the default model yet", error=error.message, hint=error.hint)
        await context.clock.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])


async def _try(context: Context, commands: Commands, wanted: RolloutRequest) -> Failure | None:
    """How the rollout, or another one that goes on already, has ended."""
    try:
        started = await commands.start_rollout(wanted, BY_SETTING)
    except RolloutInProgress:
        holder = await find_holder(context.store, DEFAULT_ENDPOINT)
        if holder is None:
            return None
        started = holder.id
    rollout = await context.store.get(Rollout, started)
    await context.ledger.until(rollout, lambda found: found.phase.settled)
    return (await context.store.get(Rollout, started)).failure
