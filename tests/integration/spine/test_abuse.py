"""Calls that make no sense, over the real ports: each is told so, and none starts or changes anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.spine.abuse import (
    NO_HTTP,
    NO_NAMES,
    NO_OBJECTS,
    WRONG_FIELDS,
    check_no_http,
    check_no_name,
    check_no_object,
    check_wrong_field,
    send,
)
from tests.integration.spine.stage import Trainer, add_trainer, owners, switches, wait_for_end
from tests.integration.spine.wire import compose, connect, read_answer, send_raw
from tests.services.yard import Yard

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def trainer(yard: Yard) -> Trainer:
    """Its version 1 serves."""
    trainer = add_trainer(yard)
    answer = yard.post(f"/admin/train_then_roll/{trainer.name}")
    wait_for_end(yard, answer["rollout_id"])
    return trainer


@contextmanager
def nothing_happens(yard: Yard) -> Iterator[None]:
    """No process, no record, no switch comes of what the block does, and the router is the same."""

    def look() -> tuple[object, ...]:
        records = [yard.call("GET", path).json() for path in ("/admin/trainings", "/admin/rollouts")]
        return owners(yard), *records, switches(yard), yard.router.pid, yard.router.running

    before = look()
    yield
    assert look() == before


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("call", ["train", "train_then_roll"])
def test_a_trainers_name_that_is_none_is_422(yard: Yard, call: str, name: str) -> None:
    with nothing_happens(yard):
        check_no_name(yard.router_url, call, name)


def test_an_unknown_trainer_is_404_and_the_known_ones_are_named(yard: Yard, trainer: Trainer) -> None:
    with nothing_happens(yard):
        for call in ("train", "train_then_roll"):
            error = yard.post(f"/admin/{call}/nobody", status=404)["error"]
            assert error["code"] == "unknown_trainer"
            assert trainer.name in error["hint"]
        error = yard.post(f"/admin/train/{trainer.name}", {"image_key": "gpu"}, status=400)["error"]
        assert error["code"] == "unknown_image_key"


@pytest.mark.parametrize(("path", "body", "field"), WRONG_FIELDS)
def test_a_body_with_a_wrong_field_is_422_and_the_field_is_named(
    yard: Yard, trainer: Trainer, path: str, body: object, field: str
) -> None:
    with nothing_happens(yard):
        check_wrong_field(yard.router_url, trainer.name, path, body, field)


@pytest.mark.parametrize("ref", [99, 2**31 - 1, "@nobody"])
def test_a_missing_version_is_404_before_anything_starts(yard: Yard, trainer: Trainer, ref: object) -> None:
    with nothing_happens(yard):
        for model in (trainer.model, "NeverHeardOf"):
            answer = yard.post("/admin/roll", {"name": model, "ref": ref}, status=404)
            assert answer["error"]["code"] == "unknown_version"
            assert model in answer["error"]["message"]


def test_a_version_that_is_active_already_is_200_and_nothing_is_done(yard: Yard, trainer: Trainer) -> None:
    active, before, traffic = yard.get("/status"), owners(yard), switches(yard)
    for ref in (1, "@deployed"):
        yard.wait_for(lambda: yard.alias(trainer.model) == 1, "the alias")
        answer = yard.post("/admin/roll", {"name": trainer.model, "ref": ref})
        assert (answer["active"], answer["version"]) == (active["active"], 1)
        assert answer["warnings"] == ["this version is active already: nothing was done"]
    assert (owners(yard), switches(yard)) == (before, traffic)


def test_a_second_rollout_is_409_with_the_first_ones_id(yard: Yard, trainer: Trainer) -> None:
    request: dict[str, Any] = {"name": trainer.model, "ref": 1, "serve_image": "tests/sources/never-ready"}
    first = yard.post("/admin/roll", {**request, "wait_seconds": 0}, status=202)
    yard.wait_for(lambda: yard.get(first["location"])["phase"] == "probing", "the first one's probe")
    with nothing_happens(yard):
        answer = yard.post("/admin/roll", {**request, "serve_image": "tests/sources/nan"}, status=409)
        assert answer["detail"]["rollout_id"] == first["id"]
        assert answer["error"]["code"] == "rollout_in_progress"
        assert first["id"] in answer["error"]["message"]
    yard.post(f"{first['location']}/abort", status=202)
    assert wait_for_end(yard, first["id"])["phase"] == "rolled_back"
    assert yard.get("/status")["model_version"] == 1


def test_a_body_over_a_mebibyte_is_413_before_it_is_read(yard: Yard) -> None:
    chunk = b"%x\r\n" % (64 * 1024) + b" " * (64 * 1024) + b"\r\n"
    head = compose("/admin/roll", headers={"Transfer-Encoding": "chunked"})
    too_long = compose("/admin/roll", headers={"Content-Length": str(MIB + 1)})
    with nothing_happens(yard):
        declared = send_raw(yard.router_url, too_long)
        with connect(yard.router_url) as connection:
            connection.sendall(head)
            for _ in range(17):  # and never an end
                connection.sendall(chunk)
            undeclared = read_answer(connection)
        for answer in (declared, undeclared):
            assert answer is not None
            assert answer.status == 413
            assert answer.error["code"] == "body_too_large"
    just_fits = send(yard.router_url, "/admin/roll", {"name": "x" * (MIB - 100), "ref": 1})
    assert just_fits.status == 422
    assert len(just_fits.body) < 2000  # what was sent is not sent back


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_does_no_harm(yard: Yard, trainer: Trainer, sent: bytes) -> None:
    with nothing_happens(yard):
        check_no_http(yard.router_url, yard.public_url, sent)
        assert yard.get("/status")["healthy"] is True
        assert yard.predict().status_code == 200


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_a_body_that_is_no_json_object_is_a_clients_error(
    yard: Yard, trainer: Trainer, content: bytes
) -> None:
    with nothing_happens(yard):
        check_no_object(yard.router_url, trainer.name, content)
