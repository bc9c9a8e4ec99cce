"""Specs are used as they are on the disk now; what is wrong in one is told, and breaks nothing that works."""

import json
from pathlib import Path

import pytest

from tests.integration.spine.stage import Trainer, add_trainer, write_spec, write_text
from tests.services.yard import Yard

SPEC = """
{name}:
  source: tests/sources/well
  env:
    REGISTERED_MODEL_NAME: {model}
    TURN: {turn}
    HOST: ${{PUBLIC_HOST}}/${{NO_SUCH_VARIABLE:-nothing}}
"""


@pytest.fixture
def trainer(yard: Yard) -> Trainer:
    return add_trainer(yard)


def fill_in(trainer: Trainer, turn: object) -> str:
    return SPEC.format(name=trainer.name, model=trainer.model, turn=turn)


def env_of_next_training(yard: Yard, trainer: Trainer) -> dict[str, str]:
    """What the trainer itself was given, from the log that it writes with BEHAVIOUR=shows-environment."""
    body = {"parameters": {"BEHAVIOUR": "shows-environment"}}
    answer = yard.post(f"/admin/train/{trainer.name}", body)
    line = next(line for line in answer["logs_tail"].splitlines() if line.startswith("environment "))
    env: dict[str, str] = json.loads(line.removeprefix("environment "))
    return env


def test_the_next_call_uses_the_file_as_it_is_now(yard: Yard, trainer: Trainer) -> None:
    (yard.specs / f"{trainer.name}.json").unlink()
    path = yard.specs / f"{trainer.name}.yaml"
    for turn in (1, "two words", True):
        path.write_text(fill_in(trainer, json.dumps(turn)))  # as an editor does, this very moment
        env = env_of_next_training(yard, trainer)
        assert env["TURN"] == (turn if isinstance(turn, str) else json.dumps(turn))
        assert env["HOST"] == "127.0.0.1/nothing"
    assert yard.get("/status")["spec_errors"] == []


def test_a_training_goes_on_as_it_was_asked_for_when_its_spec_changes(
    yard: Yard, trainer: Trainer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    held = {"HOLD_UNTIL": str(go), "BEHAVIOUR": "registers-none"}
    started = yard.post(f"/admin/train/{trainer.name}", {"parameters": held, "wait_seconds": 0}, status=202)
    write_spec(yard, trainer, "not-there", env={"REGISTERED_MODEL_NAME": "AnotherName"}, timeout=1)
    yard.wait_for(lambda: yard.get(started["location"])["phase"] == "running", "the trainer's start")
    go.touch()
    yard.wait_for(lambda: yard.get(started["location"])["phase"] == "succeeded", "the training's end")
    assert yard.get(started["location"])["model_uri"] == f"models:/{trainer.model}/1"


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [
        ("  timeout: soon\n", 8, "timeout: must be a number"),
        ("  sauce: x\n", 8, "there is no such field"),
        ("  timeout: 5\n  timeout: 6\n", 9, "timeout"),
        ("  env: [unclosed\n", None, ""),
        ("  gpus: many\n", 8, "gpus: must be `all` or a number"),
        ("  image_options: {a: }\n", 8, "image_options"),
    ],
)
def test_a_broken_file_keeps_its_last_good_spec_and_shows_in_status(
    yard: Yard, trainer: Trainer, more: str, line: int | None, said: str
) -> None:
    (yard.specs / f"{trainer.name}.json").unlink()
    path = yard.specs / f"{trainer.name}.yaml"
    good = fill_in(trainer, 1)
    write_text(path, good)
    assert yard.get("/status")["spec_errors"] == []
    try:
        write_text(path, fill_in(trainer, 2) + more)
        assert env_of_next_training(yard, trainer)["TURN"] == "1"
        (error,) = yard.get("/status")["spec_errors"]
        assert error["file"] == f"specs/{path.name}"
        assert error["line"] == line or (line is None and error["line"] >= 8)
        assert said in error["message"]
        assert str(error["line"]) in error["message"]
        unknown = yard.post("/admin/train/nobody", status=404)
        assert f"the specs have errors: specs/{path.name}" in unknown["error"]["hint"]
    finally:
        write_text(path, good)
    assert yard.get("/status")["spec_errors"] == []


@pytest.mark.parametrize("name", ["MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "SERVE_PORT", "PATH", "PYTHONPATH"])
def test_a_spec_may_not_set_what_is_the_routers_own(yard: Yard, name: str) -> None:
    refused = add_trainer(yard, env={name: "mine"})
    path = yard.specs / f"{refused.name}.json"
    try:
        answer = yard.post(f"/admin/train/{refused.name}", status=404)
        assert name in answer["error"]["hint"]
        (error,) = yard.get("/status")["spec_errors"]
        assert f"env.{name}: this variable is reserved" in error["message"]
    finally:
        path.unlink()
