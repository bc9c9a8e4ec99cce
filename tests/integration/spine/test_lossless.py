"""Users lose nothing while traffic is switched: the short form of `bench/lossless.py`."""

import itertools
import time
from pathlib import Path
from typing import Any

from bench.load import KINDS
from bench.rollouts import MIXED, roll_mixed
from tests.integration.spine.stage import add_trainer
from tests.services.clients import four_kinds_of_clients
from tests.services.yard import Yard

RATE = 210
TOGGLES = 100
ROLLOUTS = 20
PAUSE_SECONDS = 0.05  # between switches, so that many requests fall between two and many across each


def test_no_request_of_any_kind_of_client_is_lost_over_toggles_and_rollouts(
    yard: Yard, tmp_path: Path
) -> None:
    trainer = add_trainer(yard)
    addresses = set()
    for _ in range(2):
        yard.post(f"/admin/train_then_roll/{trainer.name}")
        addresses.add(yard.traffic()["active"]["address"])
    with four_kinds_of_clients(yard.public_url, tmp_path / "toggles.json", RATE) as toggling:
        versions = []
        for _ in range(TOGGLES):
            versions.append(yard.post("/admin/rollback")["version"])
            time.sleep(PAUSE_SECONDS)
    assert versions == [1, 2] * (TOGGLES // 2)
    check_report(toggling.report, addresses)

    launched = set(addresses)
    with four_kinds_of_clients(yard.public_url, tmp_path / "rollouts.json", RATE) as rolling:
        for version in (1, 2, 1):
            answer = yard.post("/admin/roll", {"name": trainer.model, "ref": version})
            assert answer["version"] == version
            launched.add(yard.traffic()["active"]["address"])
            time.sleep(10 * PAUSE_SECONDS)
    assert len(launched) == 5  # an address names one server for ever
    check_report(rolling.report, launched - addresses)


def test_no_request_is_lost_over_rollouts_of_every_strategy_and_every_end(yard: Yard, tmp_path: Path) -> None:
    """A tenth of `bench/rollouts.py`."""
    trainer = add_trainer(yard)
    yard.post(f"/admin/train_then_roll/{trainer.name}")
    yard.post(f"/admin/train/{trainer.name}")
    with four_kinds_of_clients(yard.public_url, tmp_path / "mixed.json", RATE) as load:
        rolled = list(itertools.islice(roll_mixed(yard, trainer.model), ROLLOUTS))
    assert rolled == list(MIXED) * (ROLLOUTS // len(MIXED))
    assert load.report["failed"] == 0, load.report["reasons"]
    assert load.report["requests"] >= RATE * ROLLOUTS / 2


def check_report(report: dict[str, Any], servers: set[str]) -> None:
    assert report["failed"] == 0, report["reasons"]
    assert set(report["by_kind"]) == set(KINDS)
    assert report["requests"] >= RATE * PAUSE_SECONDS * 30
    assert 2 * report["posts"] >= report["requests"]
    assert servers <= set(report["served_by"])
    assert min(report["served_by"][server] for server in servers) > RATE * PAUSE_SECONDS
    assert sum(report["served_by"].values()) == report["requests"]
