"""Rollouts: switch users to a version, go back, look at it, steer it while it shifts."""

from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from router.api.answers import answer_rollout, rollout_view
from router.api.examples import ROLLED, ROLLOUT, ROLLOUT_ID, answers, work_answers
from router.api.requests import (
    MARGIN_SECONDS,
    EndpointName,
    EngineDep,
    IdempotencyKey,
    RecordId,
    RollbackBody,
    RollBody,
    SteerBody,
    WeightBody,
    once,
    read_caller,
)
from router.core.errors import RuntimeUnavailable
from router.core.models import Rollout
from router.engine.commands import RolloutRequest
from router.engine.engine import Engine
from router.engine.steering import Steering

router = APIRouter(tags=["rollouts"])


def _patience(engine: Engine, body: RollBody | RollbackBody) -> float:
    """Seconds to wait for the switch: as asked, or the candidate's time and a margin, then 202."""
    if body.wait_seconds is not None:
        return body.wait_seconds
    return (body.wait_ready_seconds or engine.context.policy.health_timeout) + MARGIN_SECONDS


SWITCH_ANSWERS = work_answers(ROLLED, f"/admin/rollouts/{ROLLOUT_ID}")


@router.post("/admin/roll", summary="Switch users to a version", responses=SWITCH_ANSWERS)
async def roll(
    request: Request, engine: EngineDep, body: RollBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """Starts the version, proves it, switches, answers at the switch. Active already: 200, nothing done."""
    caller, patience = read_caller(request, idempotency_key, body), _patience(engine, body)
    wanted = RolloutRequest(
        name=body.name,
        ref=body.ref if isinstance(body.ref, int) else body.ref.removeprefix("@"),
        wait_ready_seconds=body.wait_ready_seconds,
        serve_image=body.serve_image,
        endpoint=body.endpoint,
        reason=body.reason,
        plan=body.rollout,
        gate_plan=body.gates,
        forced=body.force,
    )
    started = await once(engine, caller, patience, partial(engine.commands.start_rollout, wanted, caller))
    return await _answer_when_settled(engine, *started)


@router.post("/admin/rollback", summary="Switch users back to what they had before", responses=SWITCH_ANSWERS)
async def roll_back(
    request: Request,
    engine: EngineDep,
    body: RollbackBody | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """At once while the previous server is warm; otherwise its version is started again, same image."""
    body = body or RollbackBody()
    caller = read_caller(request, idempotency_key, body)
    roll_back = partial(
        engine.commands.roll_back,
        caller,
        endpoint=body.endpoint,
        wait_ready_seconds=body.wait_ready_seconds,
        serve_image=body.serve_image,
        reason=body.reason,
    )
    return await _answer_when_settled(engine, *await once(engine, caller, _patience(engine, body), roll_back))


async def _answer_when_settled(engine: Engine, rollout_id: str, wait: float | None) -> Response:
    rollout = await engine.wait_until(Rollout, rollout_id, lambda rollout: rollout.phase.settled, wait)
    return await answer_rollout(engine, rollout)


@router.get("/admin/rollouts", summary="The newest rollouts", responses=answers([ROLLOUT]))
async def list_rollouts(
    engine: EngineDep,
    endpoint: EndpointName | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> list[dict[str, Any]]:
    found = await engine.store.find(Rollout, endpoint=endpoint, newest_first=True, limit=limit)
    return [rollout_view(rollout) for rollout in found]


@router.get(
    "/admin/rollouts/{rollout_id}",
    summary="A rollout: phase, times, evidence, the end of its log",
    responses=answers(ROLLOUT),
)
async def show_rollout(engine: EngineDep, rollout_id: RecordId) -> dict[str, Any]:
    rollout = await engine.store.get(Rollout, rollout_id)
    tail = rollout.logs_tail
    if tail is None and rollout.server_id is not None:
        with suppress(RuntimeUnavailable):  # all else is told
            tail = await engine.context.runtime.logs(rollout.server_id, engine.context.policy.log_tail_bytes)
    return rollout_view(rollout) | {"logs_tail": tail or None}


class Steer(Protocol):
    def __call__(
        self, steering: Steering, rollout_id: str, /, by: str | None, reason: str | None
    ) -> Awaitable[None]: ...


def _add_call(name: str, summary: str, steer: Steer) -> None:
    """POST /admin/rollouts/ID/NAME: recorded at once, done by the rollout's worker."""

    @router.post(
        f"/admin/rollouts/{{rollout_id}}/{name}",
        name=name,
        status_code=202,
        summary=summary,
        responses=answers(ROLLOUT, 202),
    )
    async def call(
        request: Request, engine: EngineDep, rollout_id: RecordId, body: SteerBody | None = None
    ) -> dict[str, Any]:
        body = body or SteerBody()
        await steer(engine.steering, rollout_id, read_caller(request, None, body).name, body.reason)
        return rollout_view(await engine.store.get(Rollout, rollout_id))


_add_call("pause", "Keep the candidate's share as it is", Steering.pause)
_add_call("resume", "Go on with the next step", Steering.resume)
_add_call("promote", "Switch now, whatever steps are left", Steering.promote)
_add_call("abort", "Stop a rollout before the switch", Steering.abort)


@router.post(
    "/admin/rollouts/{rollout_id}/weight",
    status_code=202,
    summary="Set the candidate's share by hand",
    responses=answers(ROLLOUT, 202),
)
async def set_weight(
    request: Request, engine: EngineDep, rollout_id: RecordId, body: WeightBody
) -> dict[str, Any]:
    """The plan waits at this share until the rollout is resumed, promoted or aborted."""
    by = read_caller(request, None, body).name
    await engine.steering.set_weight(rollout_id, body.weight, by, body.reason)
    return rollout_view(await engine.store.get(Rollout, rollout_id))
