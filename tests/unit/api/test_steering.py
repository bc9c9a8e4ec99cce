"""The calls that steer a rollout, and the strategies that a request may bring."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.calls import calling
from tests.unit.engine.yard import Yard

CANARY = {
    "strategy": "canary",
    "steps": [10, 50, 100],
    "hold": 30,
    "bake": 0,
    "analysis": {"enabled": False},
}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    yard.add_version()
    yard.add_version()
    return yard


def canary(**fields: object) -> dict[str, Any]:
    return {"name": "Iris", "ref": 2, "wait_seconds": 0, "rollout": CANARY, **fields}


async def test_a_canary_answers_202_and_is_steered_by_its_id(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        accepted = await client.post("/admin/roll", json=canary(reason="a new season"))
        assert accepted.status_code == 202
        path = accepted.headers["location"]
        await yard.clock.settle()
        shown = (await client.get(path)).json()
        assert (shown["phase"], shown["steps"][-1]["weight"]) == ("shifting", 10)
        assert shown["reason"] == "a new season"
        assert (await client.post(f"{path}/weight", json={"weight": 33})).status_code == 202
        await yard.clock.settle()
        assert (await yard.proxy.read_traffic("default")).weight == 33
        for call in ("resume", "pause", "promote"):
            assert (await client.post(f"{path}/{call}")).status_code == 202
        await yard.clock.settle()
        assert await yard.served_version() == 2
        too_late = await client.post(f"{path}/promote")
        assert (too_late.status_code, too_late.json()["error"]["code"]) == (409, "already_finished")


async def test_a_caller_who_waits_is_answered_202_when_his_wait_ends_before_the_switch(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        answer = await client.post("/admin/roll", json=canary(wait_seconds=0.0))
        assert answer.status_code == 202
        assert answer.json()["id"].startswith("rol_")


@pytest.mark.parametrize("weight", [-1, 100.5, "ten", None, True])
async def test_a_share_that_cannot_be_is_refused_by_name(yard: Yard, weight: object) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        path = (await client.post("/admin/roll", json=canary())).headers["location"]
        await yard.clock.settle()
        refused = await client.post(f"{path}/weight", json={"weight": weight})
        assert refused.status_code == 422
        assert refused.json()["detail"][0]["loc"] == ["body", "weight"]
        not_a_number = await client.post(
            f"{path}/weight", content='{"weight": NaN}', headers={"content-type": "application/json"}
        )
        assert not_a_number.status_code == 422
        assert (await yard.proxy.read_traffic("default")).weight == 10


@pytest.mark.parametrize(
    ("rollout", "named"),
    [
        ({"strategy": "canary", "steps": [50, 10]}, "out of order"),
        ({"strategy": "blue_green", "steps": [10]}, "`steps` belongs to the strategy canary"),
        ({"strategy": "rainbow"}, "blue_green"),
    ],
)
async def test_a_strategy_that_cannot_be_meant_is_refused_before_anything_starts(
    yard: Yard, rollout: dict[str, object], named: str
) -> None:
    async with calling(yard) as (client, _):
        refused = await client.post("/admin/roll", json=canary(rollout=rollout))
        assert refused.status_code == 422
        assert named in refused.text
        assert yard.runtime.launched == []


async def test_a_version_takes_the_strategy_of_the_trainer_that_made_it(yard: Yard) -> None:
    (yard.folder / "iris.yaml").write_text(
        "iris: {source: sources/iris, rollout: {strategy: canary, steps: [20, 100]}}"
    )
    tags = {"switchyard.trainer": "iris"}
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        await yard.registry.set_version_tags("Iris", 2, tags)
        answer = await client.post("/admin/roll", json={"name": "Iris", "ref": 2, "wait_seconds": 0})
        await yard.clock.settle()
        assert answer.status_code == 202
        assert (await yard.proxy.read_traffic("default")).weight == 20
