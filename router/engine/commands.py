"""What people ask for, recorded as intent before anything happens. The reconciler carries it out."""

from dataclasses import dataclass
from typing import Any

from anyio import move_on_after

from router.core.errors import (
    IdempotencyKeyReused,
    ImageNotFound,
    InvalidRequest,
    InvalidSpec,
    RolloutInProgress,
    RuntimeUnavailable,
    StaleRecord,
    UnknownTrainer,
    UnknownVersion,
)
from router.core.gates import GatePlan
from router.core.images import DefaultImages, choose_images
from router.core.models import RollIntent, Rollout, RolloutPhase, Training, TrainingPhase
from router.core.specs import TrainerSpec
from router.core.strategies import Strategy
from router.core.traffic import DEFAULT_ENDPOINT, Traffic
from router.core.variables import experiment_of, merge_parameters, registered_model_of
from router.core.versions import read_reference
from router.engine.context import Context
from router.engine.endpoint_names import require_open
from router.engine.holding import find_holder, goes_back, in_progress
from router.engine.racing import wait_any
from router.engine.reconciler import Reconciler
from router.engine.rollbacks import RollbackRequest, Rollbacks
from router.engine.servers import Servers
from router.engine.steering import cut_bake_short
from router.registries.base import ModelVersion
from router.stores.base import Change, Claim

CHECK_SECONDS = 3.0
RUN_ID_LENGTH = 32  # MLflow's
STAGES = frozenset({"Production", "Staging", "Archived"})
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
    endpoint: str | None = None  # None: the spec's, or the default one
    plan: Strategy | None = None  # in place of the spec's
    gate_plan: GatePlan | None = None  # the same
    forced: bool = False  # whatever the gates say
    reason: str | None = None


@dataclass(frozen=True)
class RolloutRequest:
    name: str
    ref: int | str  # a version's number, or an alias without its `@`
    wait_ready_seconds: float | None = None
    serve_image: str | None = None
    endpoint: str = DEFAULT_ENDPOINT
    reason: str | None = None
    settle_seconds: float = SETTLE_SECONDS  # how long it may wait for one that has switched already
    plan: Strategy | None = None  # in place of that of the trainer's spec
    gate_plan: GatePlan | None = None  # the same
    forced: bool = False  # whatever the gates say


class Commands:
    def __init__(self, context: Context, servers: Servers, reconciler: Reconciler) -> None:
        self._context = context
        self._ledger = context.ledger
        self._servers = servers
        self._reconciler = reconciler
        self._rollbacks = Rollbacks(context, servers)

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

    async def claim(self, record_id: str, caller: Caller) -> str:
        """Have the caller's key, if any, stand for what is going on. The id, or that of what it stood for."""
        if caller.key is not None:
            claim = Claim(caller.key, caller.fingerprint, record_id, self._context.clock.now())
            try:
                await self._ledger.apply(claim)
            except IdempotencyKeyReused:
                earlier = await self.recall(caller)
                if earlier is None:
                    raise
                return earlier
        return record_id

    async def find_version(self, name: str, given: str) -> ModelVersion:
        """By number or alias; MLflow's old stages are aliases, as they are written or in small letters."""
        registry = self._context.registry
        try:
            return await registry.version(name, read_reference(given))
        except UnknownVersion:
            if given not in STAGES:
                raise
            return await registry.version(name, given.lower())

    async def start_training(self, request: TrainingRequest, caller: Caller) -> str:
        """The training's id."""
        context, policy = self._context, self._context.policy
        spec = await context.specs.trainer(request.trainer)
        warnings = context.specs.warnings_of(spec)
        env, applied = merge_parameters(spec.env, request.parameters)
        images = choose_images(
            spec,
            request.image_key,
            runtime=policy.runtime_kind,
            defaults=DefaultImages(policy.trainer_image, policy.serve_image),
        )
        to_come = context.trainer_env(env, "0" * RUN_ID_LENGTH)
        await context.runtime.refuse_unsupported(spec.resources, spec.gpus, spec.volumes, to_come)
        endpoint = request.endpoint or spec.endpoint or DEFAULT_ENDPOINT
        if request.then_roll:
            await require_open(context, endpoint)
        await self._require_runtime()
        training_id = context.ids.new("trn")
        now = context.clock.now()
        promise = RollIntent(
            rollout_id=context.ids.new("rol"),
            endpoint=endpoint,
            wait_ready_seconds=policy.health_timeout,
            plan=request.plan or spec.rollout or policy.plan,
            gate_plan=request.gate_plan or spec.gates or GatePlan(),
            forced=request.forced,
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
            reason=request.reason,
            warnings=warnings,
        )
        return await self._record(training, f"training of {request.trainer}", caller)

    async def start_rollout(self, request: RolloutRequest, caller: Caller) -> str:
        """The rollout's id; it has ended already if this version is active."""
        context, policy = self._context, self._context.policy
        await require_open(context, request.endpoint)
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
            while True:
                try:
                    return await self._record_rollout(request, version, image, traffic, caller)
                except StaleRecord:  # the bake that it cuts short has moved: look again
                    continue
        except RolloutInProgress:
            # It may be this very request's: sent twice at once, under one key.
            if (earlier := await self.recall(caller)) is None:
                raise
            return earlier

    async def _record_rollout(
        self, request: RolloutRequest, version: ModelVersion, image: str, traffic: Traffic, caller: Caller
    ) -> str:
        before: list[Change] = []
        rollout = await self._draft_rollout(request, version, image, caller)
        if await self._is_active_already(version, image, traffic):
            rollout = rollout.model_copy(
                update={
                    "phase": RolloutPhase.SUCCEEDED,
                    "server_id": traffic.active.server_id if traffic.active else None,
                    "warnings": ("this version is active already: nothing was done",),
                }
            )
        else:
            before = await self.settle(request.endpoint, request.settle_seconds)
        return await self._record(rollout, f"rollout of {rollout.model_uri}", caller, *before)

    async def _draft_rollout(
        self, request: RolloutRequest, version: ModelVersion, image: str, caller: Caller
    ) -> Rollout:
        now = self._context.clock.now()
        ready = request.wait_ready_seconds or self._context.policy.health_timeout
        spec = await self._find_spec(version, request)
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
            plan=request.plan or (spec and spec.rollout) or self._context.policy.plan,
            gate_plan=request.gate_plan or (spec and spec.gates) or GatePlan(),
            forced=request.forced,
            requested_by=caller.name,
            reason=request.reason,
        )

    async def _find_spec(self, version: ModelVersion, request: RolloutRequest) -> TrainerSpec | None:
        """Of the trainer that made it, as it is now, if there still is one.

        Raises InvalidSpec if it may be in a file that cannot be read: its gates must not fall away unseen.
        """
        trainer = version.tags.get("switchyard.trainer")
        if trainer is None:
            return None
        try:
            return await self._context.specs.trainer(trainer)
        except UnknownTrainer as unknown:
            problems = await self._context.specs.errors()
            if not problems or (request.plan is not None and request.gate_plan is not None):
                return None
            raise InvalidSpec(
                f"the gates of trainer {trainer!r}, which made version {version.version} of {version.name},"
                f" cannot be read: {problems[0]}; nothing was started",
                hint="mend the file, or send `gates` and `rollout` with the request",
            ) from unknown

    async def _is_active_already(self, version: ModelVersion, image: str, traffic: Traffic) -> bool:
        active = traffic.active
        if active is None or (active.model_name, active.model_version) != (version.name, version.version):
            return False
        state = await self._context.runtime.inspect(active.server_id)
        if state is None or not state.running:
            return False
        try:
            found = await self._context.runtime.find_image(image)
        except ImageNotFound:  # to be pulled by the rollout, where it can be seen
            return False
        return found.digest == active.serve_digest

    async def settle(self, endpoint: str, seconds: float) -> list[Change]:
        """What ends the rollout before this one, if it has switched: its bake is cut short.

        One that only tidies up is worth a moment; others are a conflict.
        """
        deadline = self._context.clock.now() + seconds
        while (holder := await find_holder(self._context.store, endpoint)) is not None:
            if holder.phase is RolloutPhase.BAKING:
                return [cut_bake_short(self._ledger, holder)]
            changed = self._ledger.wakeups.take(holder.id)
            remaining = deadline - self._context.clock.now()
            if not (holder.phase.switched or holder.phase is RolloutPhase.ABORTING) or remaining <= 0:
                raise in_progress(holder)
            if await self._context.store.get(Rollout, holder.id) == holder:
                await wait_any(self._context.clock, remaining, changed)
        return []

    async def roll_back(
        self,
        caller: Caller,
        *,
        endpoint: str = DEFAULT_ENDPOINT,
        wait_ready_seconds: float | None = None,
        serve_image: str | None = None,
        reason: str | None = None,
    ) -> str:
        """The rollout's id. Pushes a running rollout aside; whatever that has switched is switched back.

        To a warm server, too, only while the runtime answers: whether it runs, and what becomes of it once
        users have it, cannot be seen otherwise.
        """
        await require_open(self._context, endpoint)
        await self._require_runtime()
        wanted = RollbackRequest(endpoint, caller.name, wait_ready_seconds, serve_image, reason)
        while True:
            try:
                async with self._context.traffic_locks[endpoint]:
                    holder = await find_holder(self._context.store, endpoint)
                    if holder is not None and goes_back(holder):
                        # Asked twice: the second must not undo the first, nor must a repeat of it.
                        return await self.claim(holder.id, caller)
                    rollout, aside = await self._rollbacks.draft(wanted)
                    return await self._record(rollout, f"rollback to {rollout.model_uri}", caller, *aside)
            except (StaleRecord, RolloutInProgress):  # one has moved or begun meanwhile: look again
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
