"""Watches candidate and active server while both can be compared, from the proxy's own record of requests."""

from router.core.models import Rollout
from router.core.traffic import Traffic
from router.core.verdicts import Finding
from router.engine.context import Context

LOOK_SECONDS = 0.25


class Analyst:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def look(self, rollout: Rollout, traffic: Traffic) -> Finding | None:
        return None
