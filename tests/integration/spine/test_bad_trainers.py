"""A trainer that fails is told as it failed, is put on record in MLflow, and leaves nothing behind."""

import json
from typing import Any

import pytest

from tests.integration.spine.stage import Trainer, add_trainer, read_run, read_versions, wait_until_gone
from tests.services.yard import Yard

PROMISED = {
    "container",
    "run_id",
    "registered_model",
    "version",
    "alias_set",
    "model_uri",
    "metrics",
    "parameters",
    "image_key",
    "serve_image",
    "logs_tail",
}
NOTHING_LOGGED = "logged and registered no model in its run"


def fail_training(yard: Yard, trainer: Trainer, **body: object) -> dict[str, Any]:
    """The answer to a training that fails, with all that was promised for it."""
    answer = yard.post(f"/admin/train/{trainer.name}", body, status=500)
    detail, error = answer["detail"], answer["error"]
    assert set(detail) >= PROMISED
    assert detail["error"] == error["message"]
    assert detail["registered_model"] is detail["version"] is detail["model_uri"] is None
    shown = yard.get(f"/admin/trainings/{detail['id']}")
    assert shown["phase"] == detail["phase"]
    assert shown["failure"] == {**error, "status": 500}
    assert shown["logs_tail"] == detail["logs_tail"]
    wait_until_gone(yard, detail["id"])
    return answer


def check_run(yard: Yard, trainer: Trainer, answer: dict[str, Any], status: str, outcome: str) -> None:
    detail = answer.get("detail", answer)
    found, tags = read_run(yard, detail["run_id"])
    assert found == status
    assert tags["switchyard.outcome"] == outcome
    assert tags["switchyard.training_id"] == detail["id"]
    assert tags["switchyard.trainer"] == trainer.name
    assert tags["switchyard.container"] == detail["container"]
    assert tags["switchyard.image"] == tags["switchyard.serve_image"] == "tests/sources/well"
    assert tags["switchyard.image_digest"].startswith("sha256:")
    assert json.loads(tags["switchyard.parameters"]) == detail["parameters"]


@pytest.mark.parametrize(
    ("behaviour", "message", "printed", "metrics"),
    [
        ("fails-after-registering", "trainer failed (exit=1)", "registered\nand now it fails", {"rmse": 42}),
        ("killed", "trainer failed (exit=137)", "training, killed", {}),
        ("logs-nothing", NOTHING_LOGGED, "training, logs-nothing", {}),
        ("other-run", NOTHING_LOGGED, "registered", {"rmse": 42}),
        ("other-name", "registered its model as SomethingElse, not 'Tiny-", "registered", {"rmse": 42}),
    ],
)
def test_a_trainer_that_fails_is_a_500_with_all_fields_and_a_failed_run(
    yard: Yard, behaviour: str, message: str, printed: str, metrics: dict[str, float]
) -> None:
    trainer = add_trainer(yard)
    answer = fail_training(yard, trainer, parameters={"BEHAVIOUR": behaviour, "ROUNDS": 3})
    assert answer["error"]["code"] == "trainer_failed"
    assert message in answer["error"]["message"]
    assert answer["error"]["hint"]
    assert printed in answer["detail"]["logs_tail"]
    assert answer["detail"]["metrics"] == metrics
    assert answer["detail"]["parameters"] == {"BEHAVIOUR": behaviour, "ROUNDS": "3"}
    check_run(yard, trainer, answer, "FAILED", "failed")
    for version in read_versions(yard, trainer.model).values():
        assert "switchyard.training_id" not in {tag["key"] for tag in version.get("tags", [])}


def test_what_a_failed_trainer_has_registered_is_not_rolled_out(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "fails-after-registering"})
    before = yard.get("/status")["server_id"]
    answer = yard.post(f"/admin/train_then_roll/{trainer.name}", status=500)
    assert set(answer["detail"]) >= PROMISED
    assert list(read_versions(yard, trainer.model)) == [1]
    assert yard.get("/status")["server_id"] == before
    assert all(
        rollout["model_name"] != trainer.model for rollout in yard.call("GET", "/admin/rollouts").json()
    )


def test_a_trainer_that_overruns_its_timeout_is_stopped(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "sleeps"}, timeout=5)
    answer = fail_training(yard, trainer)
    assert answer["error"]["code"] == "trainer_timed_out"
    assert "overran its timeout of 5 s" in answer["error"]["message"]
    assert answer["detail"]["phase"] == "timed_out"
    assert answer["detail"]["logs_tail"] == "training, sleeps\n"
    check_run(yard, trainer, answer, "FAILED", "timed_out")


def test_a_cancelled_trainer_is_stopped_and_its_run_is_killed(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "sleeps"})
    started = yard.post(f"/admin/train/{trainer.name}", {"wait_seconds": 0}, status=202)
    location = started["location"]
    yard.wait_for(lambda: "sleeps" in (yard.get(location)["logs_tail"] or ""), "the trainer's start")
    yard.post(f"{location}/cancel", status=202)
    yard.wait_for(lambda: yard.get(location)["phase"] == "cancelled", "the end")
    check_run(yard, trainer, yard.get(location), "KILLED", "cancelled")
    wait_until_gone(yard, started["id"])


def test_a_model_that_was_logged_and_not_registered_is_registered_by_the_router(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "registers-none"})
    answer = yard.post(f"/admin/train_then_roll/{trainer.name}")
    assert set(answer) >= PROMISED
    assert (answer["registered_model"], answer["version"]) == (trainer.model, 1)
    version = read_versions(yard, trainer.model)[1]
    assert version["run_id"] == answer["run_id"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    written = {"switchyard.training_id": answer["id"], "switchyard.serve_image": "tests/sources/well"}
    assert written.items() <= tags.items()
    check_run(yard, trainer, answer, "FINISHED", "succeeded")
    assert yard.predict().json()["predictions"] == [1]


def test_of_two_registered_versions_the_newest_counts_and_a_warning_says_so(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "two-versions"})
    answer = yard.post(f"/admin/train/{trainer.name}")
    assert answer["version"] == 2
    assert answer["warnings"] == [
        f"the trainer registered versions 1, 2 of {trainer.model}: the newest counts"
    ]
    check_run(yard, trainer, answer, "FINISHED", "succeeded")


def test_a_source_folder_that_is_not_there_fails_the_training_by_name(yard: Yard) -> None:
    trainer = add_trainer(yard, "not-there")
    answer = fail_training(yard, trainer)
    assert answer["error"]["code"] == "image_not_found"
    assert "'tests/sources/not-there'" in answer["error"]["message"]
    assert answer["error"]["hint"]
    assert answer["detail"]["run_id"] is None


def test_a_folder_that_does_not_say_how_to_train_fails_the_training_by_name(yard: Yard) -> None:
    trainer = add_trainer(yard, "serves-only")
    answer = fail_training(yard, trainer)
    assert answer["error"]["code"] == "launch_failed"
    assert "'tests/sources/serves-only' does not say how to" in answer["error"]["message"]
    status, tags = read_run(yard, answer["detail"]["run_id"])
    assert (status, tags["switchyard.outcome"]) == ("FAILED", "failed")


def test_an_unknown_serve_image_fails_the_rollout_and_names_the_folder(yard: Yard) -> None:
    trainer = add_trainer(yard)
    yard.post(f"/admin/train/{trainer.name}")
    request = {"name": trainer.model, "ref": 1, "serve_image": "tests/sources/not-there"}
    answer = yard.call("POST", "/admin/roll", request)
    assert answer.status_code == 503
    assert "Retry-After" not in answer.headers  # the same request will fail again
    assert answer.json()["error"]["code"] == "image_not_found"
    assert "tests/sources/not-there" in answer.json()["error"]["message"]
    yard.post("/admin/roll", {"name": trainer.model, "ref": 1})  # nothing stands in the way of a good one
