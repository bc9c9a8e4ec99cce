"""What people ask for, recorded as intent before anything happens. The reconciler carries it out."""

from dataclasses import dataclass
from typing import Any

from anyio import move_on_after

from router.core.errors import (
    AlreadyFinished,
    IdempotencyKeyReused,
    InvalidRequest,
    NothingToRollBackTo,
    RolloutInProgress,
    RuntimeUnavailable,
    StaleRecord,
)
from router.core.images import DefaultImages, choose_images
from router.core.models import RollIntent, Rollout, RolloutPhase, Server, Training, TrainingPhase
from router.core.traffic import DEFAULT_ENDPOINT, Traffic
from router.core.variables import experiment_of, merge_parameters, registered_model_of
from router.engine.context import Context
from router.engine.racing import wait_any
from router.engine.reconciler import Reconciler
from router.engine.servers import SPARE, Servers
from router.registries.base import ModelVersion
from router.stores.base import Change, Claim

ACTIVE_ROLLOUT = [phase for phase in RolloutPhase if not phase.terminal]
CHECK_SECONDS = 3.0
SETTLE_SECONDS = 5.0  # how long a roll waits for one that has switched already to be done with the rest


@dataclass(frozen=True)
class Caller:
    """Who asks, and the Idempotency-Key that makes asking again harmless."""

    name: str | None = None
    key: str | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class TrainingRequest:
    trainer: str
    image_key: str | None = None
    parameters: dict[str, Any] | None = None
    then_roll: bool = False
    endpoint: str = DEFAULT_ENDPOINT


@dataclass(frozen=True)
class RolloutRequest:
    name: str
    ref: int | str  # a version's number, or an alias without its `@`
    wait_ready_seconds: float | None = None
    serve_image: str | None = None
    endpoint: str = DEFAULT_ENDPOINT
    settle_seconds: float = SETTLE_SECONDS  # how long it may wait for one that has switched already


class Commands:
    def __init__(self, context: Context, servers: Servers, reconciler: Reconciler) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._reconciler = reconciler

    async def recall(self, caller: Caller) -> str | None:
        """The id of what this key has made already. Raises IdempotencyKeyReused for another request."""
        if caller.key is None:
            return None
        claim = await self._context.store.claimed(caller.key)
        if claim is None:
            return None
        if claim.fingerprint != caller.fingerprint:
            raise IdempotencyKeyReused(hint="use a new key for a new request")
        return claim.record_id

    async def start_training(self, request: TrainingRequest, caller: Caller) -> str:
        """The training's id."""
        context, policy = self._context, self._context.policy
        spec = await context.specs.trainer(request.trainer)
        env, applied = merge_parameters(spec.env, request.parameters)
        images = choose_images(
            spec,
            request.image_key,
            runtime=policy.runtime_kind,
            defaults=DefaultImages(policy.trainer_image, policy.serve_image),
        )
        await context.runtime.refuse_unsupported(spec.resources, spec.gpus, spec.volumes)
        await self._require_runtime()
        training_id = context.ids.new("trn")
        now = context.clock.now()
        promise = RollIntent(
            rollout_id=context.ids.new("rol"),
            endpoint=request.endpoint,
            wait_ready_seconds=policy.health_timeout,
        )
        training = Training(
            id=training_id,
            created_at=now,
            updated_at=now,
            entered={str(TrainingPhase.QUEUED): now},
            trainer=request.trainer,
            container=f"trainer-{request.trainer.lower()}-{training_id.removeprefix('trn_')[-8:]}",
            image=images.trainer,
            image_key=request.image_key or None,
            serve_image=images.server,
            env=env,
            parameters=applied,
            resources=spec.resources,
            gpus=spec.gpus,
            volumes=spec.mounts,
            timeout_seconds=spec.timeout or policy.trainer_timeout,
            experiment=experiment_of(env, spec.name),
            model_name=registered_model_of(env),
            roll=promise if request.then_roll else None,
            requested_by=caller.name,
        )
        return await self._record(training, f"training of {request.trainer}", caller)

    async def start_rollout(self, request: RolloutRequest, caller: Caller) -> str:
        """The rollout's id; it has ended already if this version is active."""
        context, policy = self._context, self._context.policy
        traffic = await context.proxy.read_traffic(request.endpoint)
        version = await context.registry.version(request.name, request.ref)
        image = request.serve_image or version.tags.get("switchyard.serve_image") or policy.serve_image
        if image is None:
            raise InvalidRequest(
                f"nothing says which image serves {request.name} version {version.version}",
                hint="give `serve_image`, or set SERVE_IMAGE for the router",
            )
        await self._require_runtime()
        try:
            if await self._is_active_already(version, image, traffic):
                rollout = self._draft_rollout(request, version, image, caller).model_copy(
                    update={
                        "phase": RolloutPhase.SUCCEEDED,
                        "server_id": traffic.active.server_id if traffic.active else None,
                        "warnings": ("this version is active already: nothing was done",),
                    }
                )
            else:
                await self._settle(request.endpoint, request.settle_seconds)
                rollout = self._draft_rollout(request, version, image, caller)
            return await self._record(rollout, f"rollout of {rollout.model_uri}", caller)
        except RolloutInProgress:
            # It may be this very request's: sent twice at once, under one key.
            if (earlier := await self.recall(caller)) is None:
                raise
            return earlier

    def _draft_rollout(
        self, request: RolloutRequest, version: ModelVersion, image: str, caller: Caller
    ) -> Rollout:
        now = self._context.clock.now()
        ready = request.wait_ready_seconds or self._context.policy.health_timeout
        return Rollout(
            id=self._context.ids.new("rol"),
            created_at=now,
            updated_at=now,
            entered={str(RolloutPhase.PENDING): now},
            endpoint=request.endpoint,
            model_name=version.name,
            version=version.version,
            run_id=version.run_id,
            ref=str(request.ref) if isinstance(request.ref, int) else f"@{request.ref}",
            serve_image=image,
            ready_deadline=now + ready,
            requested_by=caller.name,
        )

    async def _is_active_already(self, version: ModelVersion, image: str, traffic: Traffic) -> bool:
        active = traffic.active
        if active is None or (active.model_name, active.model_version) != (version.name, version.version):
            return False
        state = await self._context.runtime.inspect(active.server_id)
        if state is None or not state.running:
            return False
        resolved = await self._context.runtime.resolve_image(image)
        return resolved.digest == active.serve_digest

    async def _holder(self, endpoint: str) -> Rollout | None:
        rollouts = await self._context.store.find(Rollout, phases=ACTIVE_ROLLOUT, endpoint=endpoint)
        return next((rollout for rollout in rollouts if rollout.holds_endpoint), None)

    async def _settle(self, endpoint: str, seconds: float) -> None:
        """One that only tidies up, after its switch or abort, is worth a moment; others are a conflict."""
        deadline = self._context.clock.now() + seconds
        while (holder := await self._holder(endpoint)) is not None:
            changed = self._ledger.wakeups.take(holder.id)
            remaining = deadline - self._context.clock.now()
            if not (holder.phase.switched or holder.phase is RolloutPhase.ABORTING) or remaining <= 0:
                raise in_progress(holder)
            if await self._context.store.get(Rollout, holder.id) == holder:
                await wait_any(self._context.clock, remaining, changed)

    async def roll_back(
        self,
        caller: Caller,
        *,
        endpoint: str = DEFAULT_ENDPOINT,
        wait_ready_seconds: float | None = None,
        serve_image: str | None = None,
    ) -> str:
        """The rollout's id. Pushes a running rollout aside; whatever that has switched is switched back.

        To a warm server, too, only while the runtime answers: whether it runs, and what becomes of it once
        users have it, cannot be seen otherwise.
        """
        await self._require_runtime()
        while True:
            try:
                return await self._try_roll_back(caller, endpoint, wait_ready_seconds, serve_image)
            except (StaleRecord, RolloutInProgress):  # one has moved or begun meanwhile: look again
                continue

    async def _try_roll_back(
        self, caller: Caller, endpoint: str, wait_ready_seconds: float | None, serve_image: str | None
    ) -> str:
        context = self._context
        async with context.traffic_locks[endpoint]:
            holder = await self._holder(endpoint)
            target = await self._rollback_target(endpoint, holder)
            now = context.clock.now()
            changed_image = serve_image is not None and serve_image != target.serve_image
            rollout = Rollout(
                id=context.ids.new("rol"),
                created_at=now,
                updated_at=now,
                entered={str(RolloutPhase.PENDING): now},
                endpoint=endpoint,
                kind="rollback",
                model_name=target.model_name,
                version=target.version,
                run_id=target.run_id,
                ref=str(target.version),
                serve_image=serve_image or target.serve_image,
                serve_digest=None if changed_image else target.serve_digest,
                server_id=None if changed_image else target.id,
                preempts=holder.id if holder else None,
                ready_deadline=now + (wait_ready_seconds or context.policy.health_timeout),
                requested_by=caller.name,
            )
            text = f"rollback to {rollout.model_uri}"
            aside: list[Change] = []
            if holder is not None:
                aside.append(self._ledger.moved(holder, f"pushed aside by {rollout.id}", preempted=True))
            return await self._record(rollout, text, caller, *aside)

    async def _rollback_target(self, endpoint: str, holder: Rollout | None) -> Server:
        """The server that users had before this one; during a rollout, before that rollout."""
        active = (await self._context.proxy.read_traffic(endpoint)).active
        nothing = NothingToRollBackTo(
            f"endpoint {endpoint!r} has no earlier server to go back to; nothing was changed",
            hint="POST /admin/roll starts any version by its number",
        )
        if active is None:
            raise nothing
        if holder is not None and active.server_id != holder.server_id:
            return await self._context.store.get(Server, active.server_id)
        spares = [
            s for s in await self._servers.live(endpoint) if s.phase in SPARE and s.id != active.server_id
        ]
        if spares:
            return spares[-1]
        current = (active.model_name, active.model_version, active.serve_digest)
        for rollout in await self._context.store.find(
            Rollout, endpoint=endpoint, newest_first=True, limit=100
        ):
            if rollout.previous_server_id is None:
                continue
            server = await self._context.store.get(Server, rollout.previous_server_id)
            if (server.model_name, server.version, server.serve_digest) != current:
                return server
        raise nothing

    async def cancel_training(self, training_id: str) -> None:
        while True:
            training = await self._context.store.get(Training, training_id)
            if training.phase.terminal or training.outcome is not None:
                raise AlreadyFinished(f"training {training_id} has ended already ({training.phase})")
            try:
                await self._ledger.move(training, "cancelled by request", cancel_requested=True)
                return
            except StaleRecord:
                continue

    async def abort_rollout(self, rollout_id: str) -> None:
        while True:
            rollout = await self._context.store.get(Rollout, rollout_id)
            if rollout.phase.terminal or rollout.phase is RolloutPhase.ABORTING:
                raise AlreadyFinished(f"rollout {rollout_id} has ended already ({rollout.phase})")
            if rollout.phase.switched:
                raise AlreadyFinished(
                    f"rollout {rollout_id} has switched already", hint="POST /admin/rollback goes back"
                )
            try:
                await self._ledger.move(rollout, "aborted by request", abort_requested=True)
                return
            except StaleRecord:
                continue

    async def _require_runtime(self) -> None:
        """Work that could not begin is refused, so that nobody waits for it; what has begun waits."""
        reason = f"the runtime does not answer within {CHECK_SECONDS:g} s"
        hint = None
        with move_on_after(CHECK_SECONDS):
            try:
                await self._context.runtime.check()
                return
            except RuntimeUnavailable as error:
                reason, hint = error.message, error.hint
        raise RuntimeUnavailable(f"{reason}; nothing was started, and what serves goes on", hint=hint)

    async def _record(self, record: Training | Rollout, text: str, caller: Caller, *also: Change) -> str:
        """Write the intent and start the work. If the key was used meanwhile: the id of what that made."""
        changes: list[Change] = [*also, self._ledger.opened(record, text)]
        if caller.key is not None:  # first: of one request that is sent twice, the key tells, not a conflict
            changes.insert(0, Claim(caller.key, caller.fingerprint, record.id, self._context.clock.now()))
        try:
            await self._ledger.apply(*changes)
        except IdempotencyKeyReused:
            earlier = await self.recall(caller)
            if earlier is None:
                raise
            return earlier
        if not record.phase.terminal:
            self._reconciler.take_up(record)
        return record.id


def in_progress(holder: Rollout) -> RolloutInProgress:
    return RolloutInProgress(
        f"rollout {holder.id} of {holder.model_uri} is still {holder.phase}; nothing was started",
        hint=f"wait for it, or POST /admin/rollouts/{holder.id}/abort",
        detail={"rollout_id": holder.id},
    )
