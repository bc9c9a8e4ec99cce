"""Records with something in every field that has no default, for tests that care about one or two of them."""

from typing import Any

from router.core.models import Endpoint, Event, Record, Rollout, Server, Training
from router.stores.base import Insert


def make_training(record_id: str, **fields: Any) -> Training:
    defaults: dict[str, Any] = {
        "created_at": 1.0,
        "updated_at": 1.0,
        "trainer": "diabetes",
        "container": f"trainer-{record_id}",
        "image": "trainer:1",
        "serve_image": "server:1",
        "env": {},
        "parameters": {},
        "timeout_seconds": 60.0,
        "experiment": "demo",
    }
    return Training(id=record_id, **{**defaults, **fields})


def make_rollout(record_id: str, **fields: Any) -> Rollout:
    defaults: dict[str, Any] = {
        "created_at": 1.0,
        "updated_at": 1.0,
        "model_name": "DiabetesRF",
        "version": 1,
        "ref": "1",
        "serve_image": "server:1",
        "ready_deadline": 60.0,
    }
    return Rollout(id=record_id, **{**defaults, **fields})


def make_server(record_id: str, **fields: Any) -> Server:
    defaults: dict[str, Any] = {
        "created_at": 1.0,
        "updated_at": 1.0,
        "slot": "blue",
        "name": f"server-{record_id}",
        "model_name": "DiabetesRF",
        "version": 1,
        "serve_image": "server:1",
        "serve_digest": "sha256:0",
    }
    return Server(id=record_id, **{**defaults, **fields})


def make_endpoint(name: str, **fields: Any) -> Endpoint:
    return Endpoint(id=name, **{"created_at": 1.0, "updated_at": 1.0, **fields})


def told(subject: str, text: str) -> Event:
    return Event(at=1.0, subject=subject, kind="note", text=text)


def opened(record: Record) -> Insert:
    return Insert(record, told(record.id, "opened"))
