"""The machine goes down with everything on it: what the slot directory names comes back and serves."""

import pytest

from router.core.models import Rollout, Training
from tests.integration.engine.aftermath import check_serves, read_records, wait_until_at_rest
from tests.integration.engine.killing import kill_router_at, reboot
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import add_trainer, read_run


def test_what_users_had_comes_back_as_a_new_server(stage: Stage) -> None:
    reboot(stage.yard)
    assert check_serves(stage.yard, stage.model, stage.served) not in {stage.server_id, stage.warm_id}
    assert stage.launches() == 1


def test_after_a_reboot_the_version_before_can_still_be_rolled_back_to(stage: Stage) -> None:
    reboot(stage.yard)
    wait_until_at_rest(stage.yard)
    assert stage.yard.post("/admin/rollback")["version"] == stage.other
    check_serves(stage.yard, stage.model, stage.other)


def test_a_switch_that_was_made_just_before_the_reboot_holds(stage: Stage) -> None:
    kill_router_at(stage.yard, "traffic", stage.roll().send)
    reboot(stage.yard)
    check_serves(stage.yard, stage.model, stage.other)
    assert read_records(stage.yard, Rollout)[-1].phase == "succeeded"


@pytest.mark.parametrize("phase", ["launching", "probing", "shifting"])
def test_a_candidate_that_went_down_with_the_machine_leaves_users_what_they_had(
    stage: Stage, phase: str
) -> None:
    kill_router_at(stage.yard, f"rollout:{phase}:after", stage.roll().send)
    reboot(stage.yard)
    wait_until_at_rest(stage.yard)
    rollout = read_records(stage.yard, Rollout)[-1]
    # One whose candidate was not launched yet has lost nothing and goes on.
    ended, served = ("succeeded", stage.other) if phase == "launching" else ("failed", stage.served)
    assert rollout.phase == ended
    check_serves(stage.yard, stage.model, served)


def test_a_trainer_that_went_down_with_the_machine_is_told_as_lost(stage: Stage) -> None:
    yard = stage.yard
    trainer = add_trainer(yard, env={"BEHAVIOUR": "sleeps"})
    asked = yard.post(f"/admin/train_then_roll/{trainer.name}", {"wait_seconds": 0}, status=202)
    yard.wait_for(lambda: yard.get(asked["location"])["phase"] == "running", "a running trainer")
    reboot(yard)
    wait_until_at_rest(yard)
    training = read_records(yard, Training)[-1]
    assert training.failure is not None
    assert (training.phase, training.failure.code) == ("failed", "trainer_lost")
    assert read_run(yard, str(training.run_id))[0] == "FAILED"
    check_serves(yard, stage.model, stage.served)
