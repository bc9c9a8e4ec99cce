"""What was done at an endpoint, by whom and why, and where what serves there comes from."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from router.api.answers import rollout_view
from router.api.examples import HISTORY, LINEAGE, answers
from router.api.requests import RECORD_ID_PATTERN, EndpointPath, EngineDep
from router.core.models import Event, Rollout, RolloutPhase, Server, Training, tell_number
from router.core.traffic import DEFAULT_ENDPOINT
from router.engine.engine import Engine
from router.engine.history import HistoryEntry, read_history
from router.engine.lineage import Lineage, trace_lineage

router = APIRouter(tags=["history"])

Cursor = Annotated[
    str, Query(pattern=RECORD_ID_PATTERN, description="`next_cursor` of the page before: go on from there")
]


@router.get(
    "/admin/endpoints/{name}/history",
    summary="Its rollouts, newest first: who, why, from what to what, what was found, what was decided",
    responses=answers(HISTORY),
)
async def show_history(
    engine: EngineDep,
    name: EndpointPath,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor | None = None,
) -> dict[str, Any]:
    """Of a removed endpoint too."""
    engine.require_lead()
    page = await read_history(engine.context, name, limit, cursor)
    return {
        "endpoint": name,
        "rollouts": [entry_view(entry) for entry in page.entries],
        "next_cursor": page.next_cursor,
        "events": [event_view(event) for event in page.events],
    }


@router.get(
    "/admin/endpoints/{name}/lineage",
    summary="What serves, and where it comes from: container, image, version, run, data, gates, promoter",
    responses=answers(LINEAGE),
)
async def show_lineage(engine: EngineDep, name: EndpointPath) -> dict[str, Any]:
    """What cannot be told (MLflow may be away) stands in `missing`, with the reason."""
    engine.require_lead()
    lineage = await trace_lineage(engine.context, engine.health, name)
    return lineage_view(engine, name, lineage)


@router.get("/lineage", summary="The same, of the default endpoint", responses=answers(LINEAGE))
async def show_default_lineage(engine: EngineDep) -> dict[str, Any]:
    return await show_lineage(engine, DEFAULT_ENDPOINT)


def event_view(event: Event) -> dict[str, Any]:
    return event.model_dump(mode="json", exclude={"subject"})


def entry_view(entry: HistoryEntry) -> dict[str, Any]:
    """The whole record, and beside it what only other records know."""
    return rollout_view(entry.rollout) | {
        "replaced": server_view(entry.previous) if entry.previous else None,
        "decision": decision_view(entry),
        "events": [event_view(event) for event in entry.events],
    }


def decision_view(entry: HistoryEntry) -> dict[str, Any] | None:
    """How it ended and why; None while it goes on."""
    rollout = entry.rollout
    if not rollout.phase.terminal:
        return None
    last = entry.events[-1].text if entry.events else None
    return {
        "outcome": str(rollout.phase),
        "at": rollout.updated_at,
        "why": rollout.failure.message if rollout.failure else last,
    }


def server_view(server: Server) -> dict[str, Any]:
    return {
        "server_id": server.id,
        "name": server.name,
        "model_uri": f"models:/{server.model_name}/{server.version}",
        "serve_image": server.serve_image,
        "serve_digest": server.serve_digest,
    }


def lineage_view(engine: Engine, endpoint: str, lineage: Lineage) -> dict[str, Any]:
    """Link by link, from the URL back to the data; null where a link is missing."""
    active = lineage.serving.active
    return {
        "endpoint": endpoint,
        "url": f"{engine.context.policy.endpoint_url(endpoint)}/invocations",
        "server": _server_link(lineage),
        "image": {"reference": active.serve_image, "digest": active.serve_digest} if active else None,
        "model": _model_link(lineage),
        "run": _run_link(lineage),
        "datasets": [asdict(dataset) for dataset in lineage.run.datasets] if lineage.run else None,
        "training": _training_link(lineage.training) if lineage.training else None,
        "gates": _gates_link(lineage.checked) if lineage.checked else None,
        "promotion": _promotion_link(lineage.promotion) if lineage.promotion else None,
        "missing": lineage.missing,
    }


def _server_link(lineage: Lineage) -> dict[str, Any] | None:
    serving, server = lineage.serving, lineage.serving.server
    if server is None:
        return None
    told = {"id": server.id, "name": server.name, "address": server.address, "slot": server.slot}
    return told | {"healthy": serving.healthy, "since": serving.since}


def _model_link(lineage: Lineage) -> dict[str, Any] | None:
    active, known = lineage.serving.active, lineage.version
    if active is None:
        return None
    return {
        "name": active.model_name,
        "version": active.model_version,
        "uri": f"models:/{active.model_name}/{active.model_version}",
        "alias": lineage.serving.alias,
        "aliases": known.aliases if known else None,
        "tags": known.tags if known else None,
    }


def _run_link(lineage: Lineage) -> dict[str, Any] | None:
    """From the registry; else what the router kept of it when the training ended."""
    run, training = lineage.run, lineage.training
    known: tuple[str, str | None, dict[str, str], dict[str, float]]
    if run is not None:
        known = run.run_id, str(run.status), run.parameters, run.metrics
    elif training is not None and training.run_id is not None:
        known = training.run_id, None, training.run_parameters or {}, training.metrics or {}
    else:
        return None
    run_id, status, parameters, metrics = known
    told = {name: tell_number(value) for name, value in metrics.items()}
    return {"run_id": run_id, "status": status, "parameters": parameters, "metrics": told}


def _training_link(training: Training) -> dict[str, Any]:
    return {
        "id": training.id,
        "trainer": training.trainer,
        "image": training.image,
        "image_digest": training.image_digest,
        "parameters": training.parameters,
        "requested_by": training.requested_by,
        "reason": training.reason,
        "at": training.created_at,
    }


def _gates_link(checked: Rollout) -> dict[str, Any]:
    record = rollout_view(checked)
    found = {key: record[key] for key in ("gates", "evidence", "warnings") if key in record}
    return {"rollout_id": checked.id} | found


def _promotion_link(promotion: Rollout) -> dict[str, Any]:
    return {
        "rollout_id": promotion.id,
        "kind": promotion.kind,
        "requested_by": promotion.requested_by,
        "promoted_by": promotion.promoted_by or promotion.requested_by,
        "reason": promotion.reason,
        "at": promotion.entered.get(str(RolloutPhase.PROMOTING)),
    }
