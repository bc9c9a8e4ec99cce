"""Serves the configured model at the start, if nothing is serving: a router set up by settings alone."""

import structlog

from router.core.errors import RolloutInProgress, SwitchyardError
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.commands import Caller, Commands, RolloutRequest
from router.engine.context import Context

RETRY_SECONDS = 5.0
BY_SETTING = Caller(name="DEFAULT_MODEL_NAME")

log = structlog.get_logger()


async def serve_first_model(context: Context, commands: Commands) -> None:
    """Tried until something serves: the registry, or the version in it, may come later than the router."""
    policy = context.policy
    if policy.default_model_name is None:
        return
    wanted = RolloutRequest(policy.default_model_name, policy.default_model_version)
    while (await context.proxy.read_traffic(DEFAULT_ENDPOINT)).active is None:
        try:
            await commands.start_rollout(wanted, BY_SETTING)
        except RolloutInProgress:
            return
        except SwitchyardError as error:
            log.warning("cannot serve the default model yet", error=error.message, hint=error.hint)
            await context.clock.sleep(RETRY_SECONDS)
        else:
            return
