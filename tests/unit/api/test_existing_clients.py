"""The calls of the canary server's and the single server's clients: fields and codes that they expect."""

from pathlib import Path

import pytest

from router.core.models import Rollout
from tests.unit.api.calls import calling
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    yard.add_version()
    yard.add_version()
    return yard


async def test_a_next_model_gets_its_share_and_is_accepted(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        answer = await client.post(
            "/update-model", json={"model_name": "Iris", "model_version": "2", "canary_probability": 0.25}
        )
        assert answer.status_code == 200, answer.text
        await yard.clock.settle()
        status = (await client.get("/canary-status")).json()
        assert status["current"] == {"model_name": "Iris", "model_version": 1}
        assert status["next"] == {"model_name": "Iris", "model_version": 2}
        assert status["canary_probability"] == 0.25
        info = (await client.get("/model-info")).json()
        assert (info["current"]["version"], info["next"]["version"]) == (1, 2)
        assert set(info["next"]) == {"name", "version", "run_id", "loaded_since"}
        accepted = await client.post("/accept-next-model")
        assert accepted.status_code == 200
        assert accepted.json()["current"] == {"model_name": "Iris", "model_version": 2}
        assert accepted.json()["next"] is None


async def test_the_same_next_model_again_only_gets_another_share(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        for probability in (0.25, 0, 1):
            body = {"model_name": "Iris", "model_version": 2, "canary_probability": probability}
            assert (await client.post("/update-model", json=body)).status_code == 200
            await yard.clock.settle()
            assert (await yard.proxy.read_traffic("default")).weight == 100 * probability
        assert len(await engine.store.find(Rollout)) == 2


async def test_a_late_repeat_brings_no_share_back(yard: Yard) -> None:
    first, later = {"Idempotency-Key": "first"}, {"Idempotency-Key": "later"}
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        for headers, probability, weight in (
            (first, 0.25, 25),
            (later, 0, 0),
            (first, 0.25, 0),
            (later, 0, 0),
        ):
            body = {"model_name": "Iris", "model_version": 2, "canary_probability": probability}
            assert (await client.post("/update-model", json=body, headers=headers)).status_code == 200
            await yard.clock.settle()
            assert (await yard.proxy.read_traffic("default")).weight == weight


async def test_without_a_probability_it_is_the_setting(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        assert (await client.post("/update-model", json={"name": "Iris", "version": 2})).status_code == 200
        await yard.clock.settle()
        assert (await yard.proxy.read_traffic("default")).weight == 10


@pytest.mark.parametrize("probability", [-0.1, 1.1, "half"])
async def test_a_probability_that_is_none_is_refused(yard: Yard, probability: object) -> None:
    async with calling(yard) as (client, _):
        body = {"model_name": "Iris", "model_version": 2, "canary_probability": probability}
        assert (await client.post("/update-model", json=body)).status_code == 422


async def test_a_next_model_that_is_not_there_is_404_and_accepting_none_is_409(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await yard.roll(engine, 1)
        missing = await client.post("/update-model", json={"model_name": "Iris", "model_version": 9})
        assert missing.status_code == 404
        refused = await client.post("/accept-next-model")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_next_model")


async def test_the_version_is_switched_by_number_and_by_an_old_stage(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        assert (await client.get("/model/version")).status_code == 503
        assert (await client.post("/model/version", json={"version": "1"})).status_code == 503
        await yard.roll(engine, 1)
        shape = {
            "model_name": "Iris",
            "version": "1",
            "model_uri": "models:/Iris/1",
            "model_loaded": True,
        }
        assert (await client.get("/model/version")).json() == shape
        second = shape | {"version": "2", "model_uri": "models:/Iris/2"}
        assert (await client.post("/model/version", json={"version": "2"})).json() == second
        await yard.registry.set_alias("Iris", "production", 1)
        assert (await client.post("/model/version", json={"version": "Production"})).json() == shape
        assert (await client.post("/model/version", json={"version": "Staging"})).status_code == 404
        assert (await client.post("/model/version", json={"version": "9"})).status_code == 404
        assert (await client.post("/model/version", json={"version": "../1"})).status_code == 422
        assert (await client.post("/model/version", json={})).status_code == 422


async def test_health_names_the_model_that_serves(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        empty = {"status": "ok", "model_uri": None, "model_version": None, "model_loaded": False}
        assert (await client.get("/health")).json() == empty
        await yard.roll(engine, 1)
        loaded = {"status": "ok", "model_uri": "models:/Iris/1", "model_version": "1", "model_loaded": True}
        assert (await client.get("/health")).json() == loaded
        assert (await client.get("/")).json()["service"] == "switchyard"
