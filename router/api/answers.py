"""Records as callers see them: the shapes that existing clients were promised, and our own by noun."""

from typing import Any

from fastapi import Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from router.api.errors import error_response
from router.core.decide import taken_back
from router.core.models import Endpoint, Failure, Rollout, Server, Training, TrainingPhase
from router.engine.endpoint_names import alias_of
from router.engine.engine import Engine

# The environment may hold secrets; the rest is how the router keeps its books.
HIDDEN_TRAINING_FIELDS = {"env", "revision"}


def training_view(training: Training) -> dict[str, Any]:
    return training.model_dump(mode="json", exclude=HIDDEN_TRAINING_FIELDS) | {
        "model_uri": training.model_uri,
        "metrics": training.told_metrics,
    }


def rollout_view(rollout: Rollout) -> dict[str, Any]:
    return rollout.model_dump(mode="json", exclude={"revision"}) | {"model_uri": rollout.model_uri}


def training_fields(training: Training) -> dict[str, Any]:
    return {
        "id": training.id,
        "phase": str(training.phase),
        "container": training.container,
        "run_id": training.run_id,
        "registered_model": training.registered_model,
        "version": training.version,
        "alias_set": None,
        "model_uri": training.model_uri,
        "metrics": training.told_metrics,
        "parameters": training.run_parameters or training.parameters,
        "image_key": training.image_key,
        "serve_image": training.serve_image,
        "logs_tail": training.logs_tail,
        "warnings": training.warnings,
    }


async def rollout_fields(engine: Engine, rollout: Rollout) -> dict[str, Any]:
    policy = engine.context.policy
    server = await engine.context.store.get(Server, rollout.server_id) if rollout.server_id else None
    endpoint = await engine.context.store.get(Endpoint, rollout.endpoint)
    return {
        "id": rollout.id,
        "phase": str(rollout.phase),
        "active": server.name if server else None,
        "url": f"http://{server.address}" if server and server.address else None,
        "public_url": policy.endpoint_url(rollout.endpoint),
        "version": rollout.version,
        "alias": alias_of(policy, endpoint),
        "model_uri": rollout.model_uri,
        "gates": rollout.gates,
        "warnings": rollout.warnings,
    }


def accepted(location: str, **fields: Any) -> Response:
    body = fields | {"location": location}
    return JSONResponse(jsonable_encoder(body), status_code=202, headers={"Location": location})


def answer_training(training: Training) -> Response:
    if not training.phase.terminal:
        return accepted(
            f"/admin/trainings/{training.id}", **training_fields(training), waiting_on=training.waiting_on
        )
    if training.phase is TrainingPhase.SUCCEEDED:
        return JSONResponse(jsonable_encoder(training_fields(training)))
    failure = training.failure or Failure(code="trainer_failed", message="the training failed")
    return answer_failure(failure, {"error": failure.message, **training_fields(training)})


async def answer_rollout(engine: Engine, rollout: Rollout) -> Response:
    if rollout.phase.switched:
        return JSONResponse(jsonable_encoder(await rollout_fields(engine, rollout)))
    if not rollout.phase.terminal:
        location = f"/admin/rollouts/{rollout.id}"
        return accepted(location, id=rollout.id, phase=str(rollout.phase), waiting_on=rollout.waiting_on)
    failure = rollout_failure(rollout)
    return answer_failure(failure, _rollout_problem(rollout, failure))


async def answer_training_then_rollout(engine: Engine, training: Training, rollout: Rollout) -> Response:
    fields = training_fields(training)
    if rollout.phase.switched:
        switched = await rollout_fields(engine, rollout)
        rolled = {
            "rolled": True,
            "public_url": switched["public_url"],
            "alias_set": switched["alias"],
            "rollout_id": rollout.id,
            "active": switched["active"],
            "gates": switched["gates"],
            "warnings": (*training.warnings, *rollout.warnings),
        }
        return JSONResponse(jsonable_encoder(fields | rolled))
    if not rollout.phase.terminal:
        return accepted(f"/admin/rollouts/{rollout.id}", **fields, rolled=False, rollout_id=rollout.id)
    failure = rollout_failure(rollout)
    detail = {
        "error": f"the training succeeded and the rollout did not: {failure.message}",
        "training": fields,
        "rollout_error": _rollout_problem(rollout, failure),
        "rolled": False,
    }
    return answer_failure(failure, detail)


def rollout_failure(rollout: Rollout) -> Failure:
    """Of one that has ended otherwise than it should. Records of earlier routers may not say why."""
    return rollout.failure or taken_back(rollout)


def _rollout_problem(rollout: Rollout, failure: Failure) -> dict[str, Any]:
    return {
        "error": failure.message,
        "id": rollout.id,
        "phase": str(rollout.phase),
        "model_uri": rollout.model_uri,
        "gates": rollout.gates,
        "logs_tail": rollout.logs_tail,
    }


def answer_failure(failure: Failure, detail: dict[str, Any]) -> Response:
    return error_response(failure.status, failure.code, failure.message, failure.hint, detail)
