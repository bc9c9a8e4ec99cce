"""Calls that make no sense, over the real ports: each is told so, and none starts or changes anything."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.integration.spine.stage import Trainer, add_trainer, owners, switches, wait_for_end
from tests.integration.spine.wire import Answer, compose, connect, read_answer, send_raw
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


def send(yard: Yard, path: str, body: object = None) -> Answer:
    content = json.dumps({} if body is None else body).encode()
    answer = send_raw(yard.router_url, compose(path, content))
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    "name",
    [
        *("../../etc/passwd", "..%2f..%2fetc", "%2e%2e", "%2E%2E%2F", ".", "..;", "a/../b", "%2e%2e%5cetc"),
        *("a%00b", "a%0ab", "a%0d%0aX-Evil:%201", "%ff%fe", "caf%c3%a9", "%20", "", "-rf", "a" * 64, "a b"),
    ],
)
@pytest.mark.parametrize("call", ["train", "train_then_roll"])
def test_a_trainers_name_that_is_none_is_422(yard: Yard, call: str, name: str) -> None:
    with nothing_happens(yard):
        if " " in name:
            assert send(yard, f"/admin/{call}/{name}").status == 400  # no HTTP at all
            return
        answer = send(yard, f"/admin/{call}/{name}")
        assert answer.status == 422, answer.body
        assert answer.error["code"] == "invalid_request"
        assert "path.trainer" in answer.error["message"]


def test_an_unknown_trainer_is_404_and_the_known_ones_are_named(yard: Yard, trainer: Trainer) -> None:
    with nothing_happens(yard):
        for call in ("train", "train_then_roll"):
            error = yard.post(f"/admin/{call}/nobody", status=404)["error"]
            assert error["code"] == "unknown_trainer"
            assert trainer.name in error["hint"]
        error = yard.post(f"/admin/train/{trainer.name}", {"image_key": "gpu"}, status=400)["error"]
        assert error["code"] == "unknown_image_key"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("train", {"wait_seconds": "5"}, "body.wait_seconds"),
        ("train", {"wait_seconds": -1}, "body.wait_seconds"),
        ("train", {"wait_seconds": 86_401}, "body.wait_seconds"),
        ("train", {"wait_seconds": True}, "body.wait_seconds"),
        ("train", {"image_key": 5}, "body.image_key"),
        ("train", {"parameters": []}, "body.parameters"),
        ("train", {"parameters": {"A": [1]}}, "body.parameters.A"),
        ("train", {"parameters": {"A": {"b": 1}}}, "body.parameters.A"),
        ("train", {"parameters": {"MLFLOW_RUN_ID": "x"}}, "parameters.MLFLOW_RUN_ID"),
        ("train", {"parameters": {"LD_PRELOAD": "x.so"}}, "parameters.LD_PRELOAD"),
        ("train", {"parameters": {"A": "\ud800"}}, "parameters.A: the value is not valid Unicode"),
        ("train", {"parameters": {"GIT_CONFIG_COUNT": "1"}}, "parameters.GIT_CONFIG_COUNT"),
        ("train", {"parameters": {"A": "x\ny"}}, "parameters.A"),
        ("train", {"parameters": {"A": "x\0y"}}, "parameters.A"),
        ("train", {"parameters": {"REGISTERED_MODEL_NAME": "../x"}}, "parameters.REGISTERED_MODEL_NAME"),
        ("train", {"nonsense": 1}, "body.nonsense"),
        ("train", [1], "body"),
        ("roll", {"name": "M", "ref": "latest"}, "body.ref"),
        (
            "roll",
            {"name": "M", "ref": "@"},
            "body.ref: must be a version, such as 3 without quotes, or an alias",
        ),
        ("roll", {"name": "M", "ref": "@a\n"}, "body.ref"),
        ("roll", {"name": "M", "ref": True}, "body.ref"),
        ("roll", {"name": "M", "ref": "@a/../b"}, "body.ref"),
        ("roll", {"name": "M", "ref": "1"}, "body.ref"),
        ("roll", {"name": "M", "ref": 1.0}, "body.ref"),
        ("roll", {"name": "M", "ref": 0}, "body.ref"),
        ("roll", {"name": "M", "ref": 2**31}, "body.ref"),
        ("roll", {"name": "M", "ref": None}, "body.ref"),
        ("roll", {"name": "M"}, "body.ref"),
        ("roll", {"ref": 1}, "body.name"),
        ("roll", {"name": "../M", "ref": 1}, "body.name"),
        ("roll", {"name": "%2e%2e", "ref": 1}, "body.name"),
        ("roll", {"name": "M\n", "ref": 1}, "body.name"),
        ("roll", {"name": "M\0", "ref": 1}, "body.name"),
        ("roll", {"name": "", "ref": 1}, "body.name"),
        ("roll", {"name": "M", "ref": 1, "wait_ready_seconds": 901}, "body.wait_ready_seconds"),
        ("roll", {"name": "M", "ref": 1, "serve_image": "../../x"}, "body.serve_image"),
        ("roll", {"name": "M", "ref": 1, "serve_image": "x\n"}, "body.serve_image"),
        ("roll", {"name": "M", "ref": 1, "endpoint": "../x"}, "body.endpoint"),
        ("rollback", {"wait_ready_seconds": 0}, "body.wait_ready_seconds"),
        ("rollback", {"serve_image": 7}, "body.serve_image"),
    ],
)
def test_a_body_with_a_wrong_field_is_422_and_the_field_is_named(
    yard: Yard, trainer: Trainer, path: str, body: object, field: str
) -> None:
    with nothing_happens(yard):
        answer = send(yard, f"/admin/train/{trainer.name}" if path == "train" else f"/admin/{path}", body)
        assert answer.status == 422, answer.body
        assert answer.error["code"] == "invalid_request"
        assert field in answer.error["message"]


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
    just_fits = send(yard, "/admin/roll", {"name": "x" * (MIB - 100), "ref": 1})
    assert just_fits.status == 422
    assert len(just_fits.body) < 2000  # what was sent is not sent back


CHUNKED = b"Host: a\r\nTransfer-Encoding: chunked\r\n"
NO_HTTP = {
    "empty lines": b"\r\n\r\n",
    "zeros": b"\0" * 200,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "no version": b"GET /status\r\n\r\n",
    "a negative length": b"POST /admin/roll HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /admin/roll HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 3\r\n\r\n{}",
    "a chunk of no length": b"POST /admin/roll HTTP/1.1\r\n" + CHUNKED + b"\r\nzz\r\n{}\r\n",
    "chunks and a length": b"POST /admin/roll HTTP/1.1\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a huge header": b"GET /status HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2**18 + b"\r\n\r\n",
    "a huge path": b"GET /" + b"a" * 2**18 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "half a body": b"POST /admin/roll HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{",
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
def test_what_is_no_http_does_no_harm(yard: Yard, trainer: Trainer, sent: bytes) -> None:
    fine = {
        yard.router_url: range(200, 500),
        yard.public_url: {*range(200, 500), 502, 505},  # 502: a body that breaks off on its way
    }
    with nothing_happens(yard):
        for url, expected in fine.items():
            with connect(url) as connection:
                connection.settimeout(0.5)
                try:
                    connection.sendall(sent)
                    answer = read_answer(connection)
                except OSError:  # it hung up on us, or waits for more, and we hang up
                    continue
                assert answer is None or answer.status in expected, answer
        assert yard.get("/status")["healthy"] is True
        assert yard.predict().status_code == 200


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 200_000, b'{"wait_seconds": NaN}', b'"text"'])
def test_a_body_that_is_no_json_object_is_a_clients_error(
    yard: Yard, trainer: Trainer, content: bytes
) -> None:
    with nothing_happens(yard):
        path = f"/admin/train/{trainer.name}"
        answer = send_raw(yard.router_url, compose(path, content))
        assert answer is not None
        assert answer.status in {400, 422}
        assert answer.error["code"]
