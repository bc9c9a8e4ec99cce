"""The fast way of a rollback: to a server that runs, without a launch."""

from router.core.models import Rollout, RolloutPhase, Server, ServerPhase
from router.core.traffic import Traffic, Upstream
from router.engine.context import Context
from router.engine.probing import ProbeFailed
from router.engine.servers import HAD_TRAFFIC

# The endpoint's lock is held. A machine under load may take some; to launch another server takes longer.
PING_SECONDS = 5.0


class WaysBack:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._ledger = context.ledger

    async def take_up(self, rollout: Rollout) -> Rollout | None:
        """None: its server runs, and the traffic can be switched. Else the rollout, which needs a launch.

        Without a proof: it has answered users, and `/ping` a moment ago. A fast way back asks no more.
        """
        rollout = await self._wait_for_the_one_aside(rollout)
        if rollout.server_id is None:
            return rollout
        async with self._context.traffic_locks[rollout.endpoint]:
            traffic = await self._context.proxy.read_traffic(rollout.endpoint)
            if traffic.active is not None and await self._is_there_already(rollout, traffic.active):
                await self._keep(rollout, traffic, traffic.active)
                return None
            return await self._take_up_warm(rollout, rollout.server_id, traffic.active)

    async def _wait_for_the_one_aside(self, rollout: Rollout) -> Rollout:
        """It may just be stopping the very server that users are to go back to."""
        if rollout.replaces is None or rollout.preempts is None:
            return rollout
        aside = await self._context.store.get(Rollout, rollout.preempts)
        waiting = f"rollout {aside.id} has to end first: it may be stopping the active server"
        if not aside.phase.terminal and rollout.waiting_on != waiting:
            rollout = await self._ledger.move(rollout, waiting, waiting_on=waiting)
        await self._ledger.until(aside, lambda found: found.phase.terminal)
        return rollout

    async def _is_there_already(self, rollout: Rollout, active: Upstream) -> bool:
        """Where room was made, only if that server was not stopped, or another one stands in its place."""
        if rollout.replaces is None:
            return active.server_id == rollout.server_id
        if active.server_id != rollout.server_id and not rollout.is_served_by(active):
            return False
        try:
            return await self._ping_if_it_runs(await self._context.store.get(Server, active.server_id))
        except ProbeFailed:
            return False

    async def _keep(self, rollout: Rollout, traffic: Traffic, active: Upstream) -> None:
        if traffic.candidate is not None:  # of the rollout that is pushed aside
            await self._context.proxy.set_traffic(rollout.endpoint, Traffic(active=active))
        await self._ledger.move(
            rollout, "it already has the traffic", phase=RolloutPhase.SHIFTING, server_id=active.server_id
        )

    async def _take_up_warm(
        self, rollout: Rollout, server_id: str, active: Upstream | None
    ) -> Rollout | None:
        server = await self._context.store.get(Server, server_id)
        # Or a rollback has taken it up before, and was aborted a moment ago.
        taken_up = server.phase is ServerPhase.STARTING and str(ServerPhase.READY) in server.entered
        if server.phase not in HAD_TRAFFIC and not taken_up:
            return rollout
        try:
            if not await self._ping_if_it_runs(server):
                return rollout
        except ProbeFailed as failed:
            warning = f"server {server.name} was warm, but {failed}: another one is launched"
            # Written with the launch: a step that is tried again must not write it each time.
            return rollout.model_copy(update={"warnings": (*rollout.warnings, warning)})
        waited = self._context.clock.now() - rollout.entered[str(RolloutPhase.PENDING)]
        await self._ledger.apply(
            self._ledger.moved(
                rollout,
                f"server {server.name} is still warm",
                phase=RolloutPhase.SHIFTING,
                previous_server_id=active.server_id if active else None,
                ready_deadline=rollout.ready_deadline + max(0.0, waited),  # the clock may be set
                evidence=rollout.evidence | {"probe": {"ping": 200, "served_before": True}},
            ),
            self._ledger.moved(
                server,
                f"taken up by rollback {rollout.id}",
                phase=ServerPhase.STARTING,
                rollout_id=rollout.id,
                warm_until=None,
                drain_deadline=None,
            ),
        )
        return None

    async def _ping_if_it_runs(self, server: Server) -> bool:
        """Whether it runs. Raises ProbeFailed if it does and is not well."""
        state = await self._context.runtime.inspect(server.id)
        if server.address is None or state is None or not state.running:
            return False
        await self._context.prober.ping(server.address, PING_SECONDS)
        return True
