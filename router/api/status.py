"""What is serving, and whether the router and everything that it stands on is well."""

from typing import Any

from fastapi import APIRouter, Response

from router.api.examples import ALIVE, HEALTH, READY, STATUS, answers
from router.api.requests import EndpointName, EngineDep
from router.core.errors import StandingBy
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.engine import Engine
from router.engine.status import Serving

router = APIRouter(tags=["status"])


@router.get("/status", summary="What is serving", responses=answers(STATUS))
async def status(engine: EngineDep, endpoint: EndpointName = DEFAULT_ENDPOINT) -> dict[str, Any]:
    engine.require_lead()
    serving = await engine.health.serving(endpoint)
    return serving_fields(engine, endpoint, serving) | {
        "spec_errors": [
            {"file": problem.file, "line": problem.line, "message": str(problem)}
            for problem in await engine.context.specs.errors()
        ],
    }


def serving_fields(engine: Engine, endpoint: str, serving: Serving) -> dict[str, Any]:
    active = serving.active
    return {
        "active": serving.server.name if serving.server else None,
        "url": f"http://{active.address}" if active else None,
        "public_url": engine.context.policy.endpoint_url(endpoint) if active else None,
        "healthy": serving.healthy,
        "model_name": active.model_name if active else None,
        "model_uri": f"models:/{active.model_name}/{active.model_version}" if active else None,
        "model_version": active.model_version if active else None,
        "model_alias": serving.alias if active else None,
        "alias_in_step": serving.alias_in_step,
        "ts": serving.since,
        "server_id": active.server_id if active else None,
        "serve_image": active.serve_image if active else None,
        "serve_digest": active.serve_digest if active else None,
    }


@router.get("/health", summary="The router answers, and which model serves", responses=answers(HEALTH))
async def health(engine: EngineDep) -> dict[str, Any]:
    """Reads one small file: it says nothing of how the model answers."""
    active = (await engine.context.proxy.read_traffic(DEFAULT_ENDPOINT)).active if engine.leads else None
    return {
        "status": "ok",
        "model_uri": f"models:/{active.model_name}/{active.model_version}" if active else None,
        "model_version": str(active.model_version) if active else None,
        "model_loaded": active is not None,
    }


@router.get("/healthz", summary="The process is alive", responses=answers(ALIVE))
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="The router leads, and what it stands on answers, each by name",
    responses=answers(READY),
)
async def readyz(engine: EngineDep, response: Response) -> dict[str, Any]:
    try:
        engine.require_lead()
    except StandingBy as standing_by:
        response.status_code = 503
        return {"ready": False, "router": standing_by.message}
    parts = await engine.health.ready()
    ready = all(state == "ok" for state in parts.values())
    response.status_code = 200 if ready else 503
    return {"ready": ready, "router": "ok"} | parts
