"""Trainings: start one (and roll out what it makes), look at it, cancel it."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response

from router.api.answers import (
    answer_training,
    answer_training_then_rollout,
    training_view,
)
from router.api.examples import TRAINED, TRAINED_AND_ROLLED, TRAINING, TRAINING_ID, answers, work_answers
from router.api.requests import (
    MARGIN_SECONDS,
    EngineDep,
    IdempotencyKey,
    RecordId,
    TrainBody,
    TrainerName,
    TrainThenRollBody,
    once,
    read_caller,
)
from router.core.errors import RuntimeUnavailable
from router.core.models import Rollout, Training, TrainingPhase
from router.engine.commands import TrainingRequest
from router.engine.engine import Engine

LOG_BYTES = 256 * 1024

router = APIRouter(tags=["trainings"])


@router.post(
    "/admin/train/{trainer:any}",
    summary="Train a model and register it",
    responses=work_answers(TRAINED, f"/admin/trainings/{TRAINING_ID}"),
)
async def train(
    request: Request,
    engine: EngineDep,
    trainer: TrainerName,
    body: TrainBody | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Waits for the end, at most `wait_seconds`; then it answers 202, and the training goes on."""
    body = body or TrainBody()
    wanted = _read_request(trainer, body)
    training_id, wait = await _start(engine, request, wanted, body, idempotency_key)
    return answer_training(await engine.wait_until(Training, training_id, _has_ended, wait))


@router.post(
    "/admin/train_then_roll/{trainer:any}",
    summary="Train a model, then switch users to it",
    responses=work_answers(TRAINED_AND_ROLLED, f"/admin/trainings/{TRAINING_ID}"),
)
async def train_then_roll(
    request: Request,
    engine: EngineDep,
    trainer: TrainerName,
    body: TrainThenRollBody | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """As train; the version then goes to an endpoint, and the answer waits for the switch too."""
    body = body or TrainThenRollBody()
    wanted = replace(
        _read_request(trainer, body),
        then_roll=True,
        endpoint=body.endpoint,
        plan=body.rollout,
        gate_plan=body.gates,
        forced=body.force,
        reason=body.reason,
    )
    training_id, wait = await _start(engine, request, wanted, body, idempotency_key)
    started = engine.context.clock.now()
    training = await engine.wait_until(Training, training_id, _has_ended, wait)
    if training.phase is not TrainingPhase.SUCCEEDED or training.roll is None:
        return answer_training(training)
    patience = engine.context.policy.health_timeout + MARGIN_SECONDS
    left = patience if wait is None else max(0.0, wait - (engine.context.clock.now() - started))
    rollout = await engine.wait_until(
        Rollout, training.roll.rollout_id, lambda rollout: rollout.phase.settled, left
    )
    return await answer_training_then_rollout(engine, training, rollout)


@router.get("/admin/trainings", summary="The newest trainings", responses=answers([TRAINING]))
async def list_trainings(
    engine: EngineDep, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> list[dict[str, Any]]:
    found = await engine.store.find(Training, newest_first=True, limit=limit)
    return [training_view(training) for training in found]


@router.get(
    "/admin/trainings/{training_id}",
    summary="A training: phase, times, result, the end of its log",
    responses=answers(TRAINING),
)
async def show_training(engine: EngineDep, training_id: RecordId) -> dict[str, Any]:
    training = await engine.store.get(Training, training_id)
    tail = training.logs_tail
    if not tail:
        with suppress(RuntimeUnavailable):  # all else is told
            tail = await engine.context.runtime.logs(training.id, engine.context.policy.log_tail_bytes)
    return training_view(training) | {"logs_tail": tail or None}


@router.get(
    "/admin/trainings/{training_id}/logs",
    response_class=PlainTextResponse,
    summary="Its log, as text",
    responses={200: {"content": {"text/plain": {"example": TRAINING["logs_tail"]}}}},
)
async def show_logs(engine: EngineDep, training_id: RecordId) -> str:
    """While it runs, the log's last 256 KiB; afterwards the tail that was kept."""
    training = await engine.store.get(Training, training_id)
    return await engine.context.runtime.logs(training.id, LOG_BYTES) or training.logs_tail or ""


@router.post(
    "/admin/trainings/{training_id}/cancel",
    status_code=202,
    summary="Stop a training",
    responses=answers(TRAINING, 202),
)
async def cancel(engine: EngineDep, training_id: RecordId) -> dict[str, Any]:
    await engine.steering.cancel_training(training_id)
    return training_view(await engine.store.get(Training, training_id))


def _has_ended(training: Training) -> bool:
    return training.phase.terminal


def _read_request(trainer: str, body: TrainBody) -> TrainingRequest:
    return TrainingRequest(trainer=trainer, image_key=body.image_key, parameters=body.parameters)


async def _start(
    engine: Engine, request: Request, wanted: TrainingRequest, body: TrainBody, key: str | None
) -> tuple[str, float | None]:
    caller = read_caller(request, key, body)
    start = partial(engine.commands.start_training, wanted, caller)
    return await once(engine, caller, body.wait_seconds, start)
