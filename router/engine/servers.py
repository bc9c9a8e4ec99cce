"""What rollouts and the supervisor both do with a server: draft, launch, prove, hand traffic to and from."""

from functools import partial
from typing import Never

from router.core.models import Server, ServerPhase, Slot
from router.engine.context import Context
from router.engine.probing import ProbeFailed, Proof
from router.engine.racing import race
from router.runtimes.base import Image, Role, Workload
from router.stores.base import Change, Update

LIVE = frozenset(phase for phase in ServerPhase if not phase.terminal)
SPARE = frozenset({ServerPhase.RETIRING, ServerPhase.WARM})
HAD_TRAFFIC = SPARE | {ServerPhase.READY}  # all of it or a share, or has it still
HOST_PART = 40
KEPT_BODY_BYTES = 16_384  # an input example up to this size is kept with the server


class Servers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._ledger = context.ledger

    async def live(self, endpoint: str) -> list[Server]:
        return await self._context.store.find(Server, phases=LIVE, endpoint=endpoint)

    async def draft(
        self,
        *,
        endpoint: str,
        model_name: str,
        version: int,
        run_id: str | None,
        image: Image,
        rollout_id: str | None = None,
        replaces: Server | None = None,
    ) -> Server:
        """A record for a server that is not launched yet, in the slot that has no traffic."""
        server_id = self._context.ids.new("srv")
        now = self._context.clock.now()
        return Server(
            id=server_id,
            created_at=now,
            updated_at=now,
            entered={str(ServerPhase.STARTING): now},
            endpoint=endpoint,
            slot=replaces.slot if replaces else await self._free_slot(endpoint),
            name=f"{_host_part(endpoint)}-v{version}-{server_id.removeprefix('srv_')[-8:]}",
            model_name=model_name,
            version=version,
            run_id=run_id,
            serve_image=image.reference,
            serve_digest=image.digest,
            rollout_id=rollout_id,
            replaces=replaces.id if replaces else None,
            probe_body=replaces.probe_body if replaces else None,
        )

    async def _free_slot(self, endpoint: str) -> Slot:
        active = (await self._context.proxy.read_traffic(endpoint)).active
        if active is None:
            return "blue"
        for server in await self.live(endpoint):
            if server.id == active.server_id:
                return "green" if server.slot == "blue" else "blue"
        return "green"

    async def retire_spare(self, endpoint: str, reason: str) -> list[Change]:
        """Changes that send every server without traffic on its way out, to make room."""
        return [
            self.send_away(server, reason) for server in await self.live(endpoint) if server.phase in SPARE
        ]

    def send_away(self, server: Server, reason: str) -> Update[Server]:
        """It stops once it has answered what is inside it, or at its drain deadline."""
        deadline = server.drain_deadline or self._context.clock.now() + self._context.policy.drain_grace
        return self._ledger.moved(
            server, reason, phase=ServerPhase.DRAINING, reason=reason, drain_deadline=deadline
        )

    async def launch(self, server: Server) -> Update[Server]:
        """Launch, or adopt; the returned change has the address, to be applied with the caller's own."""
        state = await self._context.runtime.launch(
            Workload(
                owner=server.id,
                role=Role.SERVER,
                name=server.name,
                image=Image(server.serve_image, server.serve_digest),
                env=self._context.server_env(server),
                endpoint=server.endpoint,
                avoid_addresses=await self._addresses_in_use(),
            )
        )
        return self._ledger.moved(server, address=state.address)

    async def _addresses_in_use(self) -> frozenset[str]:
        """An address names one server for as long as a slot directory or a live record names it."""
        used = {server.address for server in await self._context.store.find(Server, phases=LIVE)}
        named = await self._context.proxy.named_addresses()
        return named | {address for address in used if address}

    async def prove(self, server: Server, deadline: float) -> tuple[Proof, str | None]:
        """Real predictions; also the body that was asked, if it is small enough to keep.

        Raises ProbeFailed, at once if the server ends.
        """
        assert server.address is not None
        body = server.probe_body
        example = body.encode() if body is not None else None
        if example is None:
            example = await self._context.registry.input_example(server.model_name, server.version)
        proof = await race(
            partial(self._context.prober.prove, server.address, example, deadline),
            partial(self.await_end, server.id),
        )
        small = example is not None and len(example) <= KEPT_BODY_BYTES
        return proof, example.decode() if example is not None and small else None

    async def await_end(self, owner: str) -> Never:
        """Raises ProbeFailed when the server has ended."""
        while True:
            changed = self._ledger.wakeups.take(owner)
            state = await self._context.runtime.inspect(owner)
            if state is None:
                raise ProbeFailed("it is gone")
            if not state.running:
                raise ProbeFailed(f"it has ended (exit={state.exit_code})")
            await changed.wait()

    def has_traffic(self, server: Server) -> Update[Server]:
        return self._ledger.moved(
            server,
            "has the traffic",
            phase=ServerPhase.READY,
            warm_until=None,
            drain_deadline=None,
            reason=None,
        )

    def kept_warm(self, bake: float) -> float:
        """Seconds: also for as long as a watch may take users back to it."""
        return max(self._context.policy.warm_seconds, bake)

    def lost_traffic(self, server: Server, bake: float = 0) -> Update[Server]:
        now, policy = self._context.clock.now(), self._context.policy
        return self._ledger.moved(
            server,
            "another server has the traffic",
            phase=ServerPhase.RETIRING,
            warm_until=now + self.kept_warm(bake),
            drain_deadline=now + policy.drain_grace,
            reason="another server has the traffic",
        )


def _host_part(endpoint: str) -> str:
    """Under Docker the name is a host's: a label of at most 63 characters, and without dots."""
    return endpoint.lower().replace(".", "-")[:HOST_PART]
