"""The calls of the canary server's clients, on the default endpoint: a next model beside the current one.

The next model is a rollout that waits for a word; its probability is the share that was set by hand.
"""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field, model_validator

from router.api.answers import answer_rollout
from router.api.examples import CANARY_STATUS, MODEL_INFO, SERVICE, answers
from router.api.requests import Body, EngineDep, IdempotencyKey, ModelName, once, read_caller
from router.core.errors import NoNextModel
from router.core.models import Rollout, RolloutPhase, Server
from router.core.strategies import Strategy
from router.core.traffic import DEFAULT_ENDPOINT
from router.core.versions import MAX_VERSION, read_reference
from router.engine.commands import RolloutRequest
from router.engine.engine import Engine
from router.engine.holding import find_holder

router = APIRouter(tags=["canary server"])

BESIDE = Strategy(promotion="manual")


OTHER_NAMES = {"name": "model_name", "version": "model_version", "probability": "canary_probability"}
AliasText = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,255}$")]


class UpdateModel(Body):
    model_name: ModelName
    model_version: Annotated[int, Field(ge=1, le=MAX_VERSION)] | AliasText
    canary_probability: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the requests; 0 takes all traffic off it; CANARY_PROBABILITY if left out",
    )

    @model_validator(mode="before")
    @classmethod
    def rename_fields(cls, given: Any) -> Any:
        """Their bodies were never written down: the short names do as well."""
        if not isinstance(given, dict):
            return given
        return {OTHER_NAMES.get(name, name): value for name, value in given.items()}

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model_name": "DiabetesRF", "model_version": 2, "canary_probability": 0.1}]
        }
    )


async def find_next(engine: Engine) -> Rollout | None:
    holder = await find_holder(engine.store, DEFAULT_ENDPOINT)
    if holder is None or holder.kind != "roll" or holder.phase is RolloutPhase.ABORTING:
        return None
    return None if holder.phase.switched else holder


async def describe(engine: Engine) -> dict[str, Any]:
    traffic = await engine.context.proxy.read_traffic(DEFAULT_ENDPOINT)
    rollout = await find_next(engine)
    active = traffic.active
    return {
        "current": {"model_name": active.model_name, "model_version": active.model_version}
        if active
        else None,
        "next": {"model_name": rollout.model_name, "model_version": rollout.version} if rollout else None,
        "canary_probability": traffic.weight / 100 if traffic.candidate else 0.0,
        "rollout_id": rollout.id if rollout else None,
        "phase": str(rollout.phase) if rollout else None,
    }


@router.get("/canary-status", summary="The current and the next model", responses=answers(CANARY_STATUS))
async def canary_status(engine: EngineDep) -> dict[str, Any]:
    engine.require_lead()
    return await describe(engine)


@router.post(
    "/update-model", summary="Put a next model beside the current one", responses=answers(CANARY_STATUS)
)
async def update_model(
    request: Request, engine: EngineDep, body: UpdateModel, idempotency_key: IdempotencyKey = None
) -> Response:
    """Answers once it has its share. The same model again: only its share is changed."""
    policy = engine.context.policy
    share = policy.canary_probability if body.canary_probability is None else body.canary_probability
    version = await engine.context.registry.version(body.model_name, read_reference(body.model_version))
    rollout = await find_next(engine)
    caller = read_caller(request, idempotency_key, body)
    is_repeat = await engine.commands.recall(caller) is not None
    if rollout is None or (rollout.model_name, rollout.version) != (version.name, version.version):
        wanted = RolloutRequest(version.name, version.version, plan=BESIDE)
        started, _ = await once(engine, caller, None, partial(engine.commands.start_rollout, wanted, caller))
        rollout = await engine.store.get(Rollout, started)
    rollout = await engine.wait_until(Rollout, rollout.id, _stands_beside, policy.health_timeout)
    if not _is_beside(rollout):
        return await answer_rollout(engine, rollout)
    has_had_it = any(step.weight for step in rollout.steps)  # and maybe another since
    if is_repeat and has_had_it:
        return JSONResponse(await describe(engine))
    await engine.commands.claim(rollout.id, caller)
    await engine.steering.set_weight(rollout.id, 100 * share, caller.name)
    await engine.wait_for_share(rollout.id, 100 * share, policy.health_timeout)
    return JSONResponse(await describe(engine))


def _is_beside(rollout: Rollout) -> bool:
    return rollout.phase is RolloutPhase.SHIFTING and rollout.paused is not None


def _stands_beside(rollout: Rollout) -> bool:
    return _is_beside(rollout) or rollout.phase.settled


@router.post(
    "/accept-next-model", summary="The next model becomes the current one", responses=answers(CANARY_STATUS)
)
async def accept_next_model(request: Request, engine: EngineDep) -> Response:
    engine.require_lead()
    rollout = await find_next(engine)
    if rollout is None:
        raise NoNextModel(hint="POST /update-model puts one beside the current model")
    await engine.steering.promote(rollout.id, read_caller(request, None, Body()).name)
    patience = engine.context.policy.health_timeout
    rollout = await engine.wait_until(Rollout, rollout.id, lambda each: each.phase.settled, patience)
    if not rollout.phase.switched:
        return await answer_rollout(engine, rollout)
    return JSONResponse(await describe(engine))


@router.get(
    "/model-info", summary="The current and the next model, and since when", responses=answers(MODEL_INFO)
)
async def model_info(engine: EngineDep) -> dict[str, Any]:
    engine.require_lead()
    traffic = await engine.context.proxy.read_traffic(DEFAULT_ENDPOINT)
    found: dict[str, Any] = {}
    for side, upstream in (("current", traffic.active), ("next", traffic.candidate)):
        server = await engine.store.get(Server, upstream.server_id) if upstream else None
        found[side] = server and {
            "name": server.model_name,
            "version": server.version,
            "run_id": server.run_id,
            "loaded_since": server.created_at,
        }
    return found


@router.get("/", summary="What this is", responses=answers(SERVICE))
async def index(engine: EngineDep) -> dict[str, Any]:
    leads = engine.leads
    status = await describe(engine) if leads else {}
    return {"service": "switchyard", "status": "ok" if leads else "standing by", "docs": "/docs", **status}
