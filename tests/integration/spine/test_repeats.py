"""A call that is sent twice, or whose caller has gone, does its work once, the router's own ends included."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.integration.spine.stage import Trainer, add_trainer, owners, read_versions, wait_for_end
from tests.integration.spine.wire import compose, connect
from tests.services.yard import Yard


def post(yard: Yard, path: str, body: object, key: str) -> httpx.Response:
    return yard.call("POST", path, body, headers={"Idempotency-Key": key})


@pytest.fixture
def trainer(yard: Yard) -> Trainer:
    return add_trainer(yard)


def test_a_repeated_training_is_one_training_across_restarts_of_the_router(
    yard: Yard, trainer: Trainer, tmp_path: Path
) -> None:
    path, key, go = f"/admin/train/{trainer.name}", f"key-of-{trainer.name}", tmp_path / "go"
    body = {"wait_seconds": 0, "parameters": {"HOLD_UNTIL": str(go)}}
    first = post(yard, path, body, key)
    assert first.status_code == 202
    yard.wait_for(lambda: yard.get(first.json()["location"])["phase"] == "running", "the trainer's start")

    yard.router.kill()
    yard.start_router()
    again = post(yard, path, body, key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["Location"] == first.headers["Location"]
    other = post(yard, path, {**body, "parameters": {}}, key)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    yard.wait_for(lambda: owners(yard, "trn_") == {first.json()["id"]}, "one trainer alone")

    go.touch()
    yard.wait_for(lambda: yard.get(first.json()["location"])["phase"] == "succeeded", "the training's end")
    done = post(yard, path, body, key)
    assert (done.status_code, done.json()["id"], done.json()["version"]) == (200, first.json()["id"], 1)

    yard.router.stop()
    yard.start_router()
    assert post(yard, path, body, key).json() == done.json()
    assert post(yard, f"/admin/train_then_roll/{trainer.name}", body, key).status_code == 422
    assert sorted(read_versions(yard, trainer.model)) == [1]


def test_a_repeated_failure_is_the_same_failure(yard: Yard, trainer: Trainer) -> None:
    path, body = f"/admin/train_then_roll/{trainer.name}", {"parameters": {"BEHAVIOUR": "logs-nothing"}}
    first, again = (post(yard, path, body, trainer.name) for _ in range(2))
    assert (first.status_code, again.status_code) == (500, 500)
    assert again.json() == first.json()


def test_the_same_call_from_eight_clients_at_once_is_done_once(yard: Yard, trainer: Trainer) -> None:
    path, body = f"/admin/train/{trainer.name}", {"wait_seconds": 0}
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: post(yard, path, body, trainer.name), range(8)))
    assert {answer.status_code for answer in answers} <= {200, 202}
    (training_id,) = {answer.json()["id"] for answer in answers}
    location = f"/admin/trainings/{training_id}"
    yard.wait_for(lambda: yard.get(location)["phase"] == "succeeded", "the training's end")
    assert sorted(read_versions(yard, trainer.model)) == [1]


@pytest.mark.parametrize("call", ["roll", "rollback"])
def test_the_same_switch_from_eight_clients_at_once_is_one_switch(
    yard: Yard, trainer: Trainer, call: str
) -> None:
    first = yard.post(f"/admin/train_then_roll/{trainer.name}")["version"]
    second = yard.post(f"/admin/train/{trainer.name}")["version"]
    body: dict[str, object] = {"name": trainer.model, "ref": second}
    if call == "rollback":
        yard.post("/admin/roll", body)
        body = {}
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda _: post(yard, f"/admin/{call}", body, trainer.name + call), range(8))
        )
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    wanted = second if call == "roll" else first
    yard.wait_for(lambda: yard.get("/status")["model_version"] == wanted, "the switch")


def test_a_repeated_roll_or_rollback_switches_once(yard: Yard, trainer: Trainer) -> None:
    for _ in range(2):
        yard.post(f"/admin/train/{trainer.name}")
    for version in (1, 2):
        key = f"{trainer.name}-{version}"
        body = {"name": trainer.model, "ref": version}
        answers = [post(yard, "/admin/roll", body, key) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json()["id"] == answers[1].json()["id"]
    keys = [f"{trainer.name}-back"] * 2
    back = [post(yard, "/admin/rollback", {}, key) for key in keys]
    assert [answer.status_code for answer in back] == [200, 200]
    assert back[0].json()["id"] == back[1].json()["id"]
    assert yard.get("/status")["model_version"] == 1  # twice back would be version 2
    assert post(yard, "/admin/rollback", {"wait_ready_seconds": 5}, keys[0]).status_code == 422


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "caf\u00e9"])
def test_a_key_that_is_none_is_422(yard: Yard, trainer: Trainer, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    answer = yard.call("POST", f"/admin/train/{trainer.name}", {"wait_seconds": 0}, headers=headers)
    assert answer.status_code == 422
    assert "header.Idempotency-Key" in answer.json()["error"]["message"]


def test_a_client_that_hangs_up_stops_neither_its_training_nor_its_rollout(
    yard: Yard, trainer: Trainer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    body = json.dumps({"parameters": {"HOLD_UNTIL": str(go)}}).encode()
    before = owners(yard)
    with connect(yard.router_url) as connection:
        connection.sendall(compose(f"/admin/train_then_roll/{trainer.name}", body))
        yard.wait_for(lambda: bool(owners(yard, "trn_") - before), "the trainer's start")
    go.touch()
    yard.wait_for(lambda: yard.get("/status")["model_name"] == trainer.model, "the switch")

    roll = {"name": trainer.model, "ref": 1, "serve_image": "tests/sources/slow-start"}
    before = owners(yard, "srv_")
    with connect(yard.router_url) as connection:
        connection.sendall(compose("/admin/roll", json.dumps(roll).encode()))
        yard.wait_for(lambda: bool(owners(yard, "srv_") - before), "the candidate's start")
    (newest, *_) = yard.call("GET", "/admin/rollouts").json()
    assert wait_for_end(yard, newest["id"])["phase"] == "succeeded"
    assert yard.get("/status")["serve_image"] == "tests/sources/slow-start"
