"""A disk that is really full: the old state stays whole, users are served, and callers are told 507.

Only where tests may mount a file system (see conftest); tests/contract tries the drivers without that too.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import httpx
import pytest

from router.core.models import Rollout, Training
from tests.integration.engine.aftermath import check_serves, read_records, wait_until_at_rest
from tests.integration.engine.killing import Call, kill_server
from tests.integration.engine.stage import Stage, set_stage
from tests.integration.spine.stage import add_trainer, child_pid, is_alive, switches
from tests.services.mlflow_server import MlflowServer
from tests.services.small_disk import SmallDisk, mount_small_disk
from tests.services.yard import Yard, run_yard

MIB = 2**20


@dataclass(frozen=True)
class Disks:
    store: SmallDisk  # and Caddy's access log
    slots: SmallDisk


@pytest.fixture
def set_up(mlflow_server: MlflowServer) -> Iterator[tuple[Stage, Disks]]:
    with run_yard(mlflow_server.url) as yard, ExitStack() as mounts:
        store = mounts.enter_context(mount_small_disk(yard.state, 16 * MIB))
        slots = mounts.enter_context(mount_small_disk(yard.state / "slots", MIB))
        mounts.enter_context(mount_small_disk(yard.state / "process", 256 * MIB))
        mounts.callback(yard.close)  # before what it works on goes away
        yard.start()
        trainer = add_trainer(yard)
        for _ in range(2):
            yard.post(f"/admin/train/{trainer.name}")
        yield set_stage(yard, trainer.model), Disks(store, slots)


@pytest.fixture
def stage(set_up: tuple[Stage, Disks]) -> Stage:
    return set_up[0]


@pytest.fixture
def disks(set_up: tuple[Stage, Disks]) -> Disks:
    return set_up[1]


def test_a_switch_that_finds_no_room_leaves_users_what_they_have(stage: Stage, disks: Disks) -> None:
    yard, before = stage.yard, switches(stage.yard)
    disks.slots.fill()
    answer = stage.roll().send(yard)
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "storage_full"
    assert "the disk was full while writing the slot directory" in answer.json()["error"]["message"]
    wait_until_at_rest(yard)
    assert switches(yard) == before
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
    disks.slots.free()
    assert stage.roll().send(yard).status_code == 200
    check_serves(yard, stage.model, stage.other)


def test_nothing_is_begun_that_the_store_has_no_room_for(stage: Stage, disks: Disks) -> None:
    yard, trainer = stage.yard, add_trainer(stage.yard)
    before = len(read_records(yard, Training)), len(read_records(yard, Rollout))
    disks.store.fill()
    for call in (stage.roll(), Call("/admin/rollback"), Call(f"/admin/train/{trainer.name}")):
        answer = call.send(yard)
        assert answer.status_code == 507
        assert "nothing was changed" in answer.json()["error"]["message"]
    assert yard.predict().json()["server"] == stage.server_id
    assert yard.get("/status")["server_id"] == stage.server_id
    disks.store.free()
    assert (len(read_records(yard, Training)), len(read_records(yard, Rollout))) == before
    assert check_serves(yard, stage.model, stage.served) == stage.server_id


def test_the_warm_server_takes_over_while_the_store_has_no_room(stage: Stage, disks: Disks) -> None:
    dying = child_pid(stage.yard, stage.server_id)
    disks.store.fill()
    kill_server(stage.yard, stage.server_id)
    stage.yard.wait_for(lambda: not is_alive(dying), "its death")
    assert stage.yard.predict().json()["server"] == stage.warm_id
    disks.store.free()
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id


def test_a_rollout_that_the_store_has_no_more_room_for_goes_on_when_there_is(
    stage: Stage, disks: Disks
) -> None:
    """Its server needs two seconds to get ready; by then the disk is full."""
    yard = stage.yard
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(stage.roll(serve_image="tests/sources/slow-start").send, yard)
        yard.wait_for(
            lambda: yard.call("GET", "/admin/rollouts").json()[0]["phase"] == "probing", "the probe"
        )
        disks.store.fill()
        answer = asked.result()
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "storage_full"
    assert yard.predict().json()["server"] == stage.server_id
    disks.store.free()
    check_serves(yard, stage.model, stage.other)
    assert read_records(yard, Rollout)[-1].phase == "succeeded"


def test_a_router_that_is_restarted_on_a_full_disk_leads_when_there_is_room(
    stage: Stage, disks: Disks
) -> None:
    yard = stage.yard
    disks.store.fill()
    disks.slots.fill()
    yard.router.kill()
    yard.router.start(lambda: answers(yard))
    assert yard.predict().json()["server"] == stage.server_id
    disks.store.free()
    disks.slots.free()
    yard.wait_for(lambda: yard.call("GET", "/status").status_code == 200, "its lead")
    assert check_serves(yard, stage.model, stage.served) == stage.server_id
    assert stage.roll().send(yard).status_code == 200
    check_serves(yard, stage.model, stage.other)


def answers(yard: Yard) -> bool:
    try:
        return yard.call("GET", "/healthz").status_code == 200
    except httpx.TransportError:
        return False
