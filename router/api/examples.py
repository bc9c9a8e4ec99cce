"""One example answer for each call, for `/docs`: what a person who reads about a call wants to see first."""

from typing import Any

TRAINING_ID, ROLLOUT_ID = "trn_5a30663f32edf0e9", "rol_fb1cc0843149ef2c"

TRAINED: dict[str, Any] = {
    "id": TRAINING_ID,
    "phase": "succeeded",
    "container": "trainer-sklearn-model-1-32edf0e9",
    "run_id": "424711e20e434c42afd568ae0d6b5aeb",
    "registered_model": "DiabetesRF",
    "version": 2,
    "alias_set": None,
    "model_uri": "models:/DiabetesRF/2",
    "metrics": {"rmse": 56.2, "mae": 45.8, "r2": 0.4},
    "parameters": {"n_estimators": "20", "max_depth": "8"},
    "image_key": None,
    "serve_image": "model-images/sklearn-model-1",
    "logs_tail": "INFO modelkit.train: registered DiabetesRF version 2",
    "warnings": [],
}
GATES: list[dict[str, Any]] = [
    {
        "name": "metric",
        "verdict": "passed",
        "reason": "`rmse` is 56.2, at most 60 is allowed",
        "evidence": {"metrics": {"rmse": {"value": 56.2, "champion": None, "bound": {"max": 60}}}},
        "started": 1795236648.9,
        "ended": 1795236649.0,
    }
]
TRAINED_AND_ROLLED = TRAINED | {
    "alias_set": "deployed",
    "rolled": True,
    "public_url": "http://localhost:9000",
    "rollout_id": ROLLOUT_ID,
    "active": "default-v2-b50ee8be",
    "gates": GATES,
}
ROLLED: dict[str, Any] = {
    "id": ROLLOUT_ID,
    "phase": "promoting",
    "active": "default-v2-b50ee8be",
    "url": "http://127.0.0.1:20626",
    "public_url": "http://localhost:9000",
    "version": 2,
    "alias": "deployed",
    "model_uri": "models:/DiabetesRF/2",
    "gates": GATES,
    "warnings": [],
}
TRAINING: dict[str, Any] = {
    "id": TRAINING_ID,
    "phase": "running",
    "created_at": 1795236640.1,
    "entered": {"queued": 1795236640.1, "starting": 1795236640.2, "running": 1795236640.3},
    "waiting_on": None,
    "trainer": "sklearn-model-1",
    "run_id": "424711e20e434c42afd568ae0d6b5aeb",
    "exit_code": None,
    "failure": None,
    "logs_tail": "INFO modelkit.train: run 424711e2 in experiment 1",
}
ROLLOUT: dict[str, Any] = {
    "id": ROLLOUT_ID,
    "phase": "succeeded",
    "kind": "roll",
    "entered": {"pending": 1795236644.4, "launching": 1795236644.5, "promoting": 1795236649.1},
    "model_uri": "models:/DiabetesRF/2",
    "server_id": "srv_1a467fbfb50ee8be",
    "previous_server_id": "srv_9417c5f6cfe5739c",
    "evidence": {"probe": {"ping": 200, "attempts": 3, "predictions": "[149.8]"}},
    "gates": GATES,
    "failure": None,
    "logs_tail": None,
}
STATUS: dict[str, Any] = {
    "active": "default-v2-b50ee8be",
    "url": "http://127.0.0.1:20626",
    "public_url": "http://localhost:9000",
    "healthy": True,
    "model_name": "DiabetesRF",
    "model_uri": "models:/DiabetesRF/2",
    "model_version": 2,
    "model_alias": "deployed",
    "alias_in_step": True,
    "ts": 1795236649.7,
    "spec_errors": [],
}
CANARY_STATUS: dict[str, Any] = {
    "current": {"model_name": "DiabetesRF", "model_version": 1},
    "next": {"model_name": "DiabetesRF", "model_version": 2},
    "canary_probability": 0.1,
    "rollout_id": ROLLOUT_ID,
    "phase": "shifting",
}
MODEL_INFO: dict[str, Any] = {
    "current": {
        "name": "DiabetesRF",
        "version": 1,
        "run_id": "424711e20e434c42afd568ae0d6b5aeb",
        "loaded_since": 1795236649.7,
    },
    "next": None,
}
MODEL_VERSION: dict[str, Any] = {
    "model_name": "DiabetesRF",
    "version": "2",
    "model_uri": "models:/DiabetesRF/2",
    "model_loaded": True,
}
SERVICE: dict[str, Any] = {"service": "switchyard", "status": "ok", "docs": "/docs", **CANARY_STATUS}
HEALTH: dict[str, Any] = {
    "status": "ok",
    "model_uri": "models:/DiabetesRF/2",
    "model_version": "2",
    "model_loaded": True,
}
ENDPOINT: dict[str, Any] = {
    "name": "fraud",
    "phase": "open",
    "url": "http://localhost:9000/endpoints/fraud/invocations",
    "alias": "deployed-fraud",
    "model_uri": "models:/FraudGB/7",
    "healthy": True,
    "since": 1795236600.0,
    "requested_by": "127.0.0.1",
    "reason": "the card team's own",
    "waiting_on": None,
}
HISTORY: dict[str, Any] = {
    "endpoint": "default",
    "rollouts": [
        ROLLOUT
        | {
            "requested_by": "127.0.0.1",
            "reason": "retrained on November",
            "replaced": {
                "server_id": "srv_9417c5f6cfe5739c",
                "name": "default-v1-cfe5739c",
                "model_uri": "models:/DiabetesRF/1",
                "serve_image": "model-images/sklearn-model-1",
                "serve_digest": "sha256:0b5f...",
            },
            "decision": {"outcome": "succeeded", "at": 1795236649.9, "why": "rollout succeeded"},
            "events": [
                {
                    "at": 1795236649.1,
                    "kind": "phase",
                    "text": "users get models:/DiabetesRF/2 from default-v2-b50ee8be",
                    "data": {"phase": "promoting"},
                }
            ],
        }
    ],
    "next_cursor": None,
    "events": [],
}
LINEAGE: dict[str, Any] = {
    "endpoint": "default",
    "url": "http://localhost:9000/invocations",
    "server": {
        "id": "srv_1a467fbfb50ee8be",
        "name": "default-v2-b50ee8be",
        "address": "127.0.0.1:20626",
        "slot": "green",
        "healthy": True,
        "since": 1795236649.7,
    },
    "image": {"reference": "model-images/sklearn-model-1", "digest": "sha256:0b5f..."},
    "model": {
        "name": "DiabetesRF",
        "version": 2,
        "uri": "models:/DiabetesRF/2",
        "alias": "deployed",
        "aliases": ["deployed"],
        "tags": {"switchyard.training_id": TRAINING_ID},
    },
    "run": {
        "run_id": "424711e20e434c42afd568ae0d6b5aeb",
        "status": "FINISHED",
        "parameters": {"n_estimators": "20"},
        "metrics": {"rmse": 56.2},
    },
    "datasets": [
        {
            "name": "diabetes",
            "digest": "5a1b9d3c",
            "context": "training",
            "source_type": "code",
            "source": '{"tags": {}}',
        }
    ],
    "training": {
        "id": TRAINING_ID,
        "trainer": "sklearn-model-1",
        "image": "model-images/sklearn-model-1",
        "image_digest": "sha256:0b5f...",
        "parameters": {"N_ESTIMATORS": "20"},
        "requested_by": "127.0.0.1",
        "reason": None,
        "at": 1795236640.1,
    },
    "gates": {"rollout_id": ROLLOUT_ID, "evidence": ROLLOUT["evidence"], "warnings": []},
    "promotion": {
        "rollout_id": ROLLOUT_ID,
        "kind": "roll",
        "requested_by": "127.0.0.1",
        "promoted_by": "127.0.0.1",
        "reason": "retrained on November",
        "at": 1795236649.1,
    },
    "missing": {},
}
READY: dict[str, Any] = {
    "ready": True,
    "router": "ok",
    "registry": "ok",
    "runtime": "ok",
    "proxy": "ok",
    "store": "ok",
}
ALIVE: dict[str, Any] = {"status": "ok"}


def answers(example: Any, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a call that answers like this."""
    return {status: {"content": {"application/json": {"example": example}}}}


def work_answers(example: Any, location: str) -> dict[int | str, dict[str, Any]]:
    """Of a call that starts work: done, still going on, refused, or failed."""
    still_on = {"id": example["id"], "phase": "running", "location": location}
    busy = {
        "detail": "another rollout is still going on; nothing was started",
        "error": {
            "code": "rollout_in_progress",
            "message": "another rollout is still going on",
            "hint": None,
        },
    }
    return {
        **answers(example),
        202: {
            "description": "still going on: poll the `Location`",
            "content": {"application/json": {"example": still_on}},
        },
        409: {
            "description": "something else is going on",
            "content": {"application/json": {"example": busy}},
        },
        503: {"description": "the candidate is not healthy, or something that is needed does not answer"},
    }
