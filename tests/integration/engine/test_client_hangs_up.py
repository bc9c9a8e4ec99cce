"""A client that hangs up: what it asked for was recorded, and goes on."""

from pathlib import Path

import httpx
import pytest

from router.core.models import Rollout
from tests.integration.engine.aftermath import check_serves, read_records
from tests.integration.engine.stage import Stage
from tests.integration.spine.stage import add_trainer
from tests.services.yard import PLAIN, Yard


def hang_up(yard: Yard, path: str, body: dict[str, object]) -> None:
    """Send the whole request, and go away without an answer."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{yard.router_url}{path}", json=body, timeout=httpx.Timeout(30, read=0.5), **PLAIN)


def test_a_rollout_goes_on_when_its_client_hangs_up(stage: Stage) -> None:
    """Its server needs two seconds to get ready."""
    hang_up(
        stage.yard,
        "/admin/roll",
        {"name": stage.model, "ref": stage.other, "serve_image": "tests/sources/slow-start"},
    )
    check_serves(stage.yard, stage.model, stage.other)
    assert read_records(stage.yard, Rollout)[-1].phase == "succeeded"


def test_a_training_and_its_rollout_go_on_when_their_client_hangs_up(yard: Yard, tmp_path: Path) -> None:
    released = tmp_path / "released"
    trainer = add_trainer(yard, env={"HOLD_UNTIL": str(released)})
    hang_up(yard, f"/admin/train_then_roll/{trainer.name}", {})
    released.touch()
    check_serves(yard, trainer.model, 1)
