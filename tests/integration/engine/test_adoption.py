"""Trainers and servers outlive the router: the next one adopts them, and starts none of them twice."""

from pathlib import Path

import pytest

from router.core.models import Training, TrainingPhase
from tests.integration.engine.aftermath import check_serves, read_homes, read_records, wait_until_at_rest
from tests.integration.engine.killing import kill_server
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import Trainer, add_trainer, child_pid, is_alive
from tests.services.yard import Yard


def test_a_restarted_router_adopts_the_servers_that_run(stage: Stage) -> None:
    before = read_homes(stage.yard)
    stage.yard.router.kill()
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
    assert read_homes(stage.yard) == before
    assert stage.launches() == 0
    assert stage.yard.post("/admin/rollback")["version"] == stage.other
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id
    assert read_homes(stage.yard) == before


def test_a_router_that_is_told_to_stop_leaves_them_running_too(stage: Stage) -> None:
    before = read_homes(stage.yard)
    stage.yard.router.stop()
    assert stage.yard.predict().json()["server"] == stage.server_id
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
    assert read_homes(stage.yard) == before


@pytest.mark.parametrize("ends", ["while the router is away", "after its return"])
def test_a_trainer_that_outlives_the_router_is_heard_to_the_end(
    yard: Yard, tmp_path: Path, ends: str
) -> None:
    released = tmp_path / "released"
    trainer = add_trainer(yard, env={"HOLD_UNTIL": str(released)})
    asked = yard.post(f"/admin/train_then_roll/{trainer.name}", {"wait_seconds": 0}, status=202)
    yard.wait_for(lambda: yard.get(asked["location"])["phase"] == "running", "a running trainer")
    pid = child_pid(yard, asked["id"])
    yard.router.kill()
    if ends == "while the router is away":
        released.touch()
        yard.wait_for(lambda: not is_alive(pid), "its end")
        yard.start_router()
    else:
        yard.start_router()
        assert yard.get(asked["location"])["phase"] == "running"
        assert child_pid(yard, asked["id"]) == pid
        released.touch()
    check_serves(yard, trainer.model, 1)
    assert read_training(yard, trainer).phase is TrainingPhase.SUCCEEDED
    assert "registered" in str(read_training(yard, trainer).logs_tail)


def read_training(yard: Yard, trainer: Trainer) -> Training:
    [training] = [found for found in read_records(yard, Training) if found.trainer == trainer.name]
    return training


def test_a_server_that_died_while_the_router_was_away_is_replaced_by_the_warm_one(stage: Stage) -> None:
    stage.yard.router.kill()
    kill_server(stage.yard, stage.server_id)
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.other) == stage.warm_id
    assert stage.launches() == 0


def test_a_server_that_died_while_the_router_was_away_is_replaced_by_a_new_one(stage: Stage) -> None:
    kill_server(stage.yard, stage.warm_id)
    wait_until_at_rest(stage.yard)
    stage.yard.router.kill()
    kill_server(stage.yard, stage.server_id)
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) != stage.server_id
    assert stage.launches() == 1


def test_a_warm_server_that_died_while_the_router_was_away_is_not_started_again(stage: Stage) -> None:
    stage.yard.router.kill()
    kill_server(stage.yard, stage.warm_id)
    stage.yard.start_router()
    assert check_serves(stage.yard, stage.model, stage.served) == stage.server_id
    assert stage.launches() == 0
    assert read_homes(stage.yard).keys() == {stage.server_id}
