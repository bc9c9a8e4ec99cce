"""The calls of the single server's clients, on the default endpoint: which version serves, or is to."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field

from router.api.answers import answer_rollout
from router.api.examples import MODEL_VERSION, answers
from router.api.requests import MARGIN_SECONDS, Body, EngineDep, IdempotencyKey, once, read_caller
from router.core.errors import NothingLoaded
from router.core.models import Rollout
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.commands import RolloutRequest
from router.engine.engine import Engine

router = APIRouter(tags=["single server"])


class SwitchVersion(Body):
    version: Annotated[str, Field(pattern=r"^@?[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")] = Field(
        description="a number, an alias, or `Production`, `Staging`, `Archived`"
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": "2"}]})


async def describe(engine: Engine) -> dict[str, Any]:
    active = (await engine.context.proxy.read_traffic(DEFAULT_ENDPOINT)).active
    if active is None:
        raise NothingLoaded(hint="POST /admin/train_then_roll/TRAINER makes one and serves it")
    return {
        "model_name": active.model_name,
        "version": str(active.model_version),
        "model_uri": f"models:/{active.model_name}/{active.model_version}",
        "model_loaded": True,
    }


@router.get("/model/version", summary="Which version serves", responses=answers(MODEL_VERSION))
async def show_version(engine: EngineDep) -> dict[str, Any]:
    engine.require_lead()
    return await describe(engine)


@router.post(
    "/model/version", summary="Serve another version of the same model", responses=answers(MODEL_VERSION)
)
async def switch_version(
    request: Request, engine: EngineDep, body: SwitchVersion, idempotency_key: IdempotencyKey = None
) -> Response:
    engine.require_lead()
    name = (await describe(engine))["model_name"]
    version = await engine.commands.find_version(name, body.version)
    caller = read_caller(request, idempotency_key, body)
    wanted = RolloutRequest(version.name, version.version)
    patience = engine.context.policy.health_timeout + MARGIN_SECONDS
    started, wait = await once(
        engine, caller, patience, partial(engine.commands.start_rollout, wanted, caller)
    )
    rollout = await engine.wait_until(Rollout, started, lambda each: each.phase.settled, wait)
    if not rollout.phase.switched:
        return await answer_rollout(engine, rollout)
    return JSONResponse(await describe(engine))
