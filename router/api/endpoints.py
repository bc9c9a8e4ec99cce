"""Endpoints: add, list, look at and remove them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from router.api.answers import accepted
from router.api.examples import ENDPOINT, STATUS, answers
from router.api.requests import EndpointPath, EndpointsBody, EngineDep, Reason, read_caller
from router.api.status import serving_fields
from router.core.errors import UnknownEndpoint
from router.core.models import Endpoint, EndpointPhase
from router.engine.commands import SETTLE_SECONDS
from router.engine.endpoint_names import PRESENT, alias_of, require_present
from router.engine.engine import Engine
from router.engine.holding import find_holder
from router.engine.status import Serving

router = APIRouter(tags=["endpoints"])

MARGIN_SECONDS = 15.0  # for stopping, after what is inside its servers has had its time


@router.post(
    "/admin/endpoints",
    status_code=201,
    summary="Add endpoints",
    responses=answers([ENDPOINT], 201) | {409: {"description": "a name or an alias is taken"}},
)
async def add(request: Request, engine: EngineDep, body: EndpointsBody) -> list[dict[str, Any]]:
    """All of them or none; Caddy reloads once for any number. One that is there already stays as it is."""
    by = read_caller(request, None, body).name
    added = await engine.endpoints.add(body.wanted, alias=body.alias, by=by, reason=body.reason)
    return [endpoint_view(engine, endpoint, await _look(engine, endpoint)) for endpoint in added]


@router.get("/admin/endpoints", summary="Every endpoint", responses=answers([ENDPOINT]))
async def list_endpoints(engine: EngineDep) -> list[dict[str, Any]]:
    found = sorted(await engine.store.find(Endpoint, phases=PRESENT), key=lambda endpoint: endpoint.id)
    return [endpoint_view(engine, endpoint, await _look(engine, endpoint)) for endpoint in found]


@router.get(
    "/admin/endpoints/{name}",
    summary="An endpoint: its URL and alias, what serves, the rollout that is going on",
    responses=answers(ENDPOINT | {"status": STATUS, "rollout": None}),
)
async def show(engine: EngineDep, name: EndpointPath) -> dict[str, Any]:
    engine.require_lead()
    endpoint = await require_present(engine.context, name)
    serving, holder = await _look(engine, endpoint, fresh=True), await find_holder(engine.store, name)
    return endpoint_view(engine, endpoint, serving) | {
        "status": serving_fields(engine, name, serving),
        "rollout": holder.id if holder else None,
    }


@router.delete(
    "/admin/endpoints/{name}",
    summary="Remove an endpoint; its history stays",
    responses=answers(ENDPOINT | {"phase": "closed"})
    | answers(ENDPOINT | {"phase": "closing", "location": "/admin/endpoints/fraud"}, 202)
    | {409: {"description": "a rollout is going on"}},
)
async def remove(
    request: Request,
    engine: EngineDep,
    name: EndpointPath,
    force: Annotated[bool, Query(description="push a running rollout aside")] = False,
    reason: Annotated[Reason | None, Query()] = None,
    wait_seconds: Annotated[float | None, Query(ge=0, le=86_400, allow_inf_nan=False)] = None,
) -> Response:
    """Its servers finish what they have and stop, then its routes, slots and alias go."""
    by = request.client.host if request.client else None
    if not force:
        await engine.commands.settle(name, SETTLE_SECONDS)
    await engine.endpoints.remove(name, by=by, reason=reason, force=force)
    if wait_seconds is None:
        wait_seconds = engine.context.policy.drain_grace + MARGIN_SECONDS
    endpoint = await engine.wait_until(Endpoint, name, lambda found: found.phase.terminal, wait_seconds)
    fields = endpoint_view(engine, endpoint, _nothing(engine, endpoint))
    return JSONResponse(fields) if endpoint.phase.terminal else accepted(f"/admin/endpoints/{name}", **fields)


async def _look(engine: Engine, endpoint: Endpoint, *, fresh: bool = False) -> Serving:
    try:
        return await engine.health.serving(endpoint.id, fresh=fresh)
    except UnknownEndpoint:  # it is being removed
        return _nothing(engine, endpoint)


def _nothing(engine: Engine, endpoint: Endpoint) -> Serving:
    return Serving(alias_of(engine.context.policy, endpoint))


def endpoint_view(engine: Engine, endpoint: Endpoint, serving: Serving) -> dict[str, Any]:
    active = serving.active
    return {
        "name": endpoint.id,
        "phase": str(endpoint.phase),
        "url": f"{engine.context.policy.endpoint_url(endpoint.id)}/invocations",
        "alias": serving.alias,
        "model_uri": f"models:/{active.model_name}/{active.model_version}" if active else None,
        "healthy": serving.healthy,
        "since": endpoint.entered.get(str(EndpointPhase.OPEN), endpoint.created_at),
        "requested_by": endpoint.requested_by,
        "reason": endpoint.reason,
        "waiting_on": endpoint.waiting_on,
    }
