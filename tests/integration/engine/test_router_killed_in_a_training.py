"""`kill -9` of the router in every phase of a training, before and after the write that enters the phase."""

import pytest

from router.core.models import Rollout, RolloutPhase, Training, TrainingPhase
from tests.integration.engine.aftermath import check_serves, read_records, wait_until_at_rest
from tests.integration.engine.killing import Call, kill_router_at
from tests.integration.spine.stage import Trainer, add_trainer, read_run, read_versions
from tests.services.yard import Yard

WHEN = ["before", "after"]


def read_trainings(yard: Yard, trainer: Trainer) -> list[Training]:
    return [training for training in read_records(yard, Training) if training.trainer == trainer.name]


def read_rollouts(yard: Yard, trainer: Trainer) -> list[Rollout]:
    return [rollout for rollout in read_records(yard, Rollout) if rollout.model_name == trainer.model]


def check_trained_and_rolled_out(yard: Yard, trainer: Trainer) -> Training:
    """Once and not twice: one training, one version of its run, one rollout, which serves."""
    check_serves(yard, trainer.model, 1)
    [training] = read_trainings(yard, trainer)
    assert training.phase is TrainingPhase.SUCCEEDED
    assert training.exit_code == 0
    assert training.metrics == {"rmse": 42.0}
    assert training.run_id is not None
    versions = read_versions(yard, trainer.model)
    assert [version["run_id"] for version in versions.values()] == [training.run_id]
    status, tags = read_run(yard, training.run_id)
    assert status == "FINISHED"
    assert tags["switchyard.training_id"] == training.id
    [rollout] = read_rollouts(yard, trainer)
    assert rollout.phase is RolloutPhase.SUCCEEDED
    assert rollout.training_id == training.id
    return training


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("phase", ["starting", "running", "registering", "succeeded"])
def test_a_training_goes_on_and_rolls_out_what_it_made(yard: Yard, phase: str, when: str) -> None:
    trainer = add_trainer(yard)
    call = Call(f"/admin/train_then_roll/{trainer.name}")
    kill_router_at(yard, f"training:{phase}:{when}", call.send)
    yard.start_router()
    training = check_trained_and_rolled_out(yard, trainer)
    assert call.send(yard).json()["id"] == training.id
    assert len(read_trainings(yard, trainer)) == 1


def test_a_training_that_was_recorded_is_carried_out_though_nobody_heard_so(yard: Yard) -> None:
    trainer = add_trainer(yard)
    call = Call(f"/admin/train_then_roll/{trainer.name}")
    kill_router_at(yard, "training:queued:after", call.send)
    yard.start_router()
    training = check_trained_and_rolled_out(yard, trainer)
    assert call.send(yard).json()["id"] == training.id


def test_a_training_that_was_not_recorded_is_not_begun_and_can_be_asked_for_again(yard: Yard) -> None:
    trainer = add_trainer(yard)
    call = Call(f"/admin/train_then_roll/{trainer.name}")
    kill_router_at(yard, "training:queued:before", call.send)
    yard.start_router()
    wait_until_at_rest(yard)
    assert read_trainings(yard, trainer) == []
    assert call.send(yard).status_code == 200
    check_trained_and_rolled_out(yard, trainer)


@pytest.mark.parametrize("when", WHEN)
def test_a_training_that_fails_is_told_as_failed(yard: Yard, when: str) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "fails-after-registering"})
    call = Call(f"/admin/train_then_roll/{trainer.name}")
    kill_router_at(yard, f"training:failed:{when}", call.send)
    yard.start_router()
    wait_until_at_rest(yard)
    answer = call.send(yard)
    assert answer.status_code == 500
    assert answer.json()["detail"]["error"] == "trainer failed (exit=1)"
    assert "and now it fails" in answer.json()["detail"]["logs_tail"]
    check_ended(yard, trainer, TrainingPhase.FAILED, "FAILED")


@pytest.mark.parametrize("when", WHEN)
def test_a_training_that_overruns_its_timeout_is_told_as_timed_out(yard: Yard, when: str) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "sleeps"}, timeout=1)
    call = Call(f"/admin/train_then_roll/{trainer.name}")
    kill_router_at(yard, f"training:timed_out:{when}", call.send)
    yard.start_router()
    wait_until_at_rest(yard)
    check_ended(yard, trainer, TrainingPhase.TIMED_OUT, "FAILED")


@pytest.mark.parametrize("when", WHEN)
def test_a_training_that_was_cancelled_stays_cancelled(yard: Yard, when: str) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "sleeps"})

    def train_and_cancel(yard: Yard) -> None:
        asked = Call(f"/admin/train_then_roll/{trainer.name}", {"wait_seconds": 0}).send(yard).json()
        yard.wait_for(lambda: yard.get(asked["location"])["phase"] == "running", "a running trainer")
        yard.post(f"{asked['location']}/cancel", status=202)

    kill_router_at(yard, f"training:cancelled:{when}", train_and_cancel)
    yard.start_router()
    wait_until_at_rest(yard)
    check_ended(yard, trainer, TrainingPhase.CANCELLED, "KILLED")


def check_ended(yard: Yard, trainer: Trainer, phase: TrainingPhase, status: str) -> None:
    """And nothing was rolled out."""
    [training] = read_trainings(yard, trainer)
    assert training.phase is phase
    assert training.run_id is not None
    assert read_run(yard, training.run_id)[0] == status
    assert read_rollouts(yard, trainer) == []
