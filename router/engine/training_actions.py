"""Carries out what `decide_training` names. Each action may be repeated after a crash."""

import json
from functools import partial

from router.core.actions import (
    CloseTraining,
    CollectVersion,
    ConcludeTraining,
    LaunchTrainer,
    PrepareRun,
    RecordExit,
    StopTrainer,
    TrainingAction,
    Wait,
)
from router.core.errors import (
    EndpointBusy,
    RolloutInProgress,
    StaleRecord,
    SwitchyardError,
    TrainerFailed,
    UnknownEndpoint,
)
from router.core.models import Failure, Rollout, RolloutPhase, Training, TrainingPhase
from router.engine.context import Context
from router.engine.holding import find_holder
from router.engine.racing import race
from router.engine.steering import cut_bake_short
from router.engine.telling import telling
from router.registries.base import ModelVersion, RunStatus
from router.runtimes.base import Image, Role, Workload
from router.stores.base import Change, Insert

RUN_STATUS = {
    TrainingPhase.SUCCEEDED: RunStatus.FINISHED,
    TrainingPhase.FAILED: RunStatus.FAILED,
    TrainingPhase.TIMED_OUT: RunStatus.FAILED,
    TrainingPhase.CANCELLED: RunStatus.KILLED,
}


class TrainingActions:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._ledger = context.ledger

    async def carry_out(self, training: Training, action: TrainingAction) -> None:
        match action:
            case PrepareRun():
                await self._prepare_run(training)
            case LaunchTrainer():
                await self._launch(training)
            case StopTrainer():
                await self._context.runtime.stop(training.id, self._context.policy.stop_grace)
            case RecordExit():
                await self._record_exit(training)
            case CollectVersion():
                await self._collect_version(training)
            case ConcludeTraining(outcome, failure):
                await self._conclude(training, outcome, failure)
            case CloseTraining():
                await self._close(training)
            case Wait():
                pass

    async def _prepare_run(self, training: Training) -> None:
        resolve = partial(self._context.runtime.resolve_image, training.image, None)
        image = await race(
            partial(telling, self._ledger, training, resolve),
            partial(self._ledger.until, training, lambda stored: stored.cancel_requested),
        )
        if image is None:
            return
        tags = _run_tags(training) | {"switchyard.image_digest": image.digest}
        run_id = await self._context.registry.create_run(training.experiment, training.id, tags)
        while training.phase is TrainingPhase.QUEUED:
            try:
                training = await self._ledger.move(
                    training,
                    f"run {run_id} is ready; image pinned to {image.digest}",
                    phase=TrainingPhase.STARTING,
                    image_digest=image.digest,
                    run_id=run_id,
                )
            except StaleRecord:  # cancelled in the meantime, and all the more in need of a run to close
                training = await self._context.store.get(Training, training.id)

    async def _launch(self, training: Training) -> None:
        assert training.run_id is not None
        assert training.image_digest is not None
        workload = Workload(
            owner=training.id,
            role=Role.TRAINER,
            name=training.container,
            image=Image(training.image, training.image_digest),
            env=self._context.trainer_env(training.env, training.run_id),
            resources=training.resources,
            gpus=training.gpus,
            volumes=training.volumes,
        )
        state = await self._context.runtime.launch(workload)
        started = state.started_at or self._context.clock.now()
        await self._ledger.move(
            training,
            f"trainer {training.container} runs",
            phase=TrainingPhase.RUNNING,
            deadline=started + training.timeout_seconds,
        )

    async def _record_exit(self, training: Training) -> None:
        await self._ledger.move(
            training,
            "trainer exited with 0",
            phase=TrainingPhase.REGISTERING,
            exit_code=0,
            logs_tail=await self._logs_tail(training),
        )

    async def _collect_version(self, training: Training) -> None:
        assert training.run_id is not None
        registry = self._context.registry
        version, warnings = await self._find_version(training, training.run_id)
        await registry.set_version_tags(
            version.name,
            version.version,
            {
                "switchyard.training_id": training.id,
                "switchyard.trainer": training.trainer,
                "switchyard.serve_image": training.serve_image,
            },
        )
        await self._ledger.move(
            training,
            f"version {version.version} of {version.name} is registered",
            outcome=TrainingPhase.SUCCEEDED,
            registered_model=version.name,
            version=version.version,
            warnings=training.warnings + warnings,
        )

    async def _find_version(self, training: Training, run_id: str) -> tuple[ModelVersion, tuple[str, ...]]:
        """A version counts only if its run is this training's, under the name that was asked for."""
        versions = await self._context.registry.versions_of_run(run_id)
        if not versions:
            return await self._register_logged_model(training, run_id), ()
        names = sorted({version.name for version in versions})
        wanted = training.model_name or (names[0] if len(names) == 1 else None)
        mine = [version for version in versions if version.name == wanted]
        if not mine:
            asked = f"not {training.model_name!r}" if training.model_name else "more than one name"
            raise TrainerFailed(
                f"the trainer registered its model as {', '.join(names)}, {asked}",
                hint="make REGISTERED_MODEL_NAME in the spec's env and the trainer agree",
            )
        newest = max(mine, key=lambda version: version.version)
        if len(mine) == 1:
            return newest, ()
        numbers = ", ".join(str(version.version) for version in mine)
        return newest, (f"the trainer registered versions {numbers} of {wanted}: the newest counts",)

    async def _register_logged_model(self, training: Training, run_id: str) -> ModelVersion:
        models = await self._context.registry.logged_models(run_id)
        if not models:
            raise TrainerFailed(
                f"the trainer exited with 0, but logged and registered no model in its run {run_id}",
                hint="log the model in the run that MLFLOW_RUN_ID names, which the first start_run() resumes",
            )
        if training.model_name is None:
            raise TrainerFailed(
                f"the trainer logged a model in run {run_id}, but no name to register it under is known",
                hint="set REGISTERED_MODEL_NAME in the env of the trainer's spec",
            )
        return await self._context.registry.register(training.model_name, run_id, models[-1])

    async def _conclude(self, training: Training, outcome: TrainingPhase, failure: Failure | None) -> None:
        workload = await self._context.runtime.inspect(training.id)
        if workload is not None and workload.running:
            await self._context.runtime.stop(training.id, self._context.policy.stop_grace)
        await self._ledger.move(
            training,
            failure.message if failure else str(outcome),
            outcome=outcome,
            failure=failure,
            exit_code=workload.exit_code if workload else training.exit_code,
            out_of_memory=workload.out_of_memory if workload else None,
            logs_tail=await self._logs_tail(training) or training.logs_tail,
        )

    async def fail(self, training: Training, error: SwitchyardError) -> None:
        """An action cannot succeed however often it is tried: to its caller, one more trainer that failed."""
        if training.outcome is None:
            failure = Failure.of(error).model_copy(update={"status": TrainerFailed.status})
            await self._conclude(training, TrainingPhase.FAILED, failure)
        else:
            await self._enter_terminal(training, warnings=(*training.warnings, error.message))

    async def _close(self, training: Training) -> None:
        assert training.outcome is not None
        changes: dict[str, object] = {}
        if training.run_id is not None:
            status = RUN_STATUS[training.outcome]
            tags = _run_tags(training) | {"switchyard.outcome": str(training.outcome)}
            await self._context.registry.finish_run(training.run_id, status, tags)
            run = await self._context.registry.run(training.run_id)
            if run is not None:
                changes = {"metrics": run.metrics, "run_parameters": run.parameters}
        await self._enter_terminal(training, **changes)

    async def _enter_terminal(self, training: Training, **changes: object) -> None:
        assert training.outcome is not None
        moved = self._ledger.moved(
            training, f"training {training.outcome}", phase=training.outcome, **changes
        )
        promised: list[Change] = []
        if training.roll is not None and training.outcome is TrainingPhase.SUCCEEDED:
            baking = await find_holder(self._context.store, training.roll.endpoint)
            if baking is not None and baking.phase is RolloutPhase.BAKING:
                promised.append(cut_bake_short(self._ledger, baking))
            promised.append(self._promised_rollout(training))
        try:
            await self._ledger.apply(moved, *promised)
        except RolloutInProgress as busy:
            raise EndpointBusy(
                f"{busy.message}; the rollout of {training.model_uri} starts after it"
            ) from busy
        except UnknownEndpoint as gone:  # removed while it trained: that is the rollout's end, not its own
            await self._ledger.apply(moved, self._promised_rollout(training, gone))
        await self._context.runtime.remove(training.id)

    def _promised_rollout(self, training: Training, gone: UnknownEndpoint | None = None) -> Insert:
        assert training.roll is not None
        assert training.registered_model is not None
        assert training.version is not None
        now = self._context.clock.now()
        rollout = Rollout(
            id=training.roll.rollout_id,
            phase=RolloutPhase.FAILED if gone else RolloutPhase.PENDING,
            failure=Failure.of(gone) if gone else None,
            created_at=now,
            updated_at=now,
            entered={str(RolloutPhase.PENDING): now},
            endpoint=training.roll.endpoint,
            model_name=training.registered_model,
            version=training.version,
            run_id=training.run_id,
            ref=str(training.version),
            serve_image=training.serve_image,
            training_id=training.id,
            ready_deadline=now + training.roll.wait_ready_seconds,
            plan=training.roll.plan,
            gate_plan=training.roll.gate_plan,
            forced=training.roll.forced,
            requested_by=training.requested_by,
            reason=training.reason,
        )
        return self._ledger.opened(rollout, f"rollout of {rollout.model_uri} as promised by {training.id}")

    async def _logs_tail(self, training: Training) -> str:
        return await self._context.runtime.logs(training.id, self._context.policy.log_tail_bytes)


def _run_tags(training: Training) -> dict[str, str]:
    tags = {
        "switchyard.trainer": training.trainer,
        "switchyard.container": training.container,
        "switchyard.image": training.image,
        "switchyard.serve_image": training.serve_image,
        "switchyard.parameters": json.dumps(training.parameters, sort_keys=True),
    }
    if training.image_key is not None:
        tags["switchyard.image_key"] = training.image_key
    return tags
