"""The calls that existing clients make, field by field."""

from functools import partial
from pathlib import Path

import pytest

from router.core.errors import RuntimeUnavailable
from router.core.models import Rollout, Training
from tests.unit.api.calls import calling, end_training, post_and_end
from tests.unit.engine.yard import Yard

STATUS_FIELDS = {
    "active",
    "url",
    "public_url",
    "healthy",
    "model_name",
    "model_uri",
    "model_version",
    "model_alias",
    "ts",
}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_status_is_all_null_before_the_first_rollout(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        status = (await client.get("/status")).json()
        assert set(status) >= STATUS_FIELDS
        assert status["healthy"] is False
        assert all(status[field] is None for field in STATUS_FIELDS - {"healthy"})


async def test_status_tells_what_serves(yard: Yard) -> None:
    version = yard.add_version()
    async with calling(yard) as (client, engine):
        await yard.roll(engine, version)
        status = (await client.get("/status")).json()
        assert status["healthy"] is True
        assert status["public_url"] == "http://localhost:9000"
        assert status["model_name"] == "Iris"
        assert status["model_version"] == version
        assert status["model_uri"] == f"models:/Iris/{version}"
        assert status["model_alias"] == "deployed"
        assert status["alias_in_step"] is True
        assert status["url"].startswith("http://127.0.0.1:")
        assert status["ts"] == (await yard.server(status["server_id"])).entered["ready"]


async def test_train_answers_with_the_version_it_made(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        answer = await post_and_end(
            yard, client, engine, "/admin/train/iris", json={"parameters": {"N": 3, "FLAG": True}}
        )
        assert answer.status_code == 200
        body = answer.json()
        assert body["registered_model"] == "Iris"
        assert body["version"] == 1
        assert body["model_uri"] == "models:/Iris/1"
        assert body["alias_set"] is None
        assert body["metrics"] == {"rmse": 55.0}
        assert body["parameters"] == {"N": "3", "FLAG": "true"}
        assert body["serve_image"] == "sources/iris"
        assert body["image_key"] is None
        assert {"container", "run_id", "logs_tail"} <= set(body)
        assert yard.runtime.launched[0].env["N"] == "3"


async def test_a_training_by_an_earlier_text_of_its_spec_says_so(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await engine.context.specs.trainers()
        (yard.folder / "iris.yaml").write_text("iris: [\n")
        answer = await post_and_end(yard, client, engine, "/admin/train/iris")
        assert answer.status_code == 200
        (warning,) = answer.json()["warnings"]
        assert warning.startswith("as its spec was before this: ")


async def test_a_failed_trainer_is_a_500_with_the_same_fields(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        answer = await post_and_end(yard, client, engine, "/admin/train/iris", exit_code=3)
        assert answer.status_code == 500
        body = answer.json()
        assert body["detail"]["error"] == "trainer failed (exit=3)"
        assert {"container", "run_id", "logs_tail", "metrics"} <= set(body["detail"])
        assert body["error"]["code"] == "trainer_failed"


async def test_train_then_roll_answers_at_the_switch(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        answer = await post_and_end(yard, client, engine, "/admin/train_then_roll/iris")
        assert answer.status_code == 200
        body = answer.json()
        assert body["rolled"] is True
        assert body["public_url"] == "http://localhost:9000"
        assert body["alias_set"] == "deployed"
        assert body["version"] == 1
        assert await yard.served_version() == 1


async def test_if_the_rollout_fails_both_parts_are_in_the_detail(yard: Yard) -> None:
    yard.answers.predictions["sources/iris"] = [float("nan")]
    async with calling(yard) as (client, engine):
        answer = await post_and_end(yard, client, engine, "/admin/train_then_roll/iris")
        assert answer.status_code == 503
        detail = answer.json()["detail"]
        assert detail["training"]["version"] == 1
        assert "not finite" in detail["rollout_error"]["error"]


async def test_a_wait_that_runs_out_answers_202_and_the_training_goes_on(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        answer = await client.post("/admin/train/iris", json={"wait_seconds": 0})
        assert answer.status_code == 202
        location = answer.headers["location"]
        assert location == answer.json()["location"]
        await end_training(yard, engine)
        await yard.clock.settle()
        assert (await client.get(location)).json()["phase"] == "succeeded"


async def test_roll_answers_with_what_serves_now(yard: Yard) -> None:
    version = yard.add_version()
    await yard.registry.set_alias("Iris", "champion", version)
    async with calling(yard) as (client, _):
        answer = await client.post("/admin/roll", json={"name": "Iris", "ref": "@champion"})
        assert answer.status_code == 200
        body = answer.json()
        assert body["version"] == version
        assert body["alias"] == "deployed"
        assert body["model_uri"] == f"models:/Iris/{version}"
        assert body["public_url"] == "http://localhost:9000"
        assert body["active"].startswith("default-v1-")
        again = await client.post("/admin/roll", json={"name": "Iris", "ref": version})
        assert again.status_code == 200
        assert again.json()["active"] == body["active"]
        assert len(yard.runtime.launched) == 1


async def test_rollback_answers_as_roll_does(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, engine):
        assert (await client.post("/admin/rollback")).status_code == 409
        await yard.roll(engine, first)
        await yard.roll(engine, second)
        answer = await client.post("/admin/rollback", json={})
        assert answer.status_code == 200
        assert answer.json()["version"] == first


async def test_records_are_told_though_the_runtime_is_away(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(owner: str, tail_bytes: int) -> str:
        raise RuntimeUnavailable("Docker does not answer")

    async with calling(yard) as (client, engine):
        training = await yard.train(engine)
        rollout = await yard.roll(engine, yard.add_version())
        monkeypatch.setattr(yard.runtime, "logs", refuse)
        for path in (f"/admin/trainings/{training.id}", f"/admin/rollouts/{rollout.id}"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["logs_tail"]) == (200, None)


async def test_an_idempotency_key_makes_a_repeat_harmless(yard: Yard) -> None:
    headers = {"Idempotency-Key": "monday"}
    async with calling(yard) as (client, engine):
        body = {"wait_seconds": 0}
        first = await client.post("/admin/train/iris", json=body, headers=headers)
        again = await client.post("/admin/train/iris", json=body, headers=headers)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
        other = await client.post("/admin/train/iris", json={"wait_seconds": 1}, headers=headers)
        assert other.status_code == 422
        assert other.json()["error"]["code"] == "idempotency_key_reused"
        await end_training(yard, engine)
        await yard.clock.settle()
        done = await client.post("/admin/train/iris", json=body, headers=headers)
        assert done.status_code == 200
        assert done.json()["id"] == first.json()["id"]
        assert len(yard.runtime.launched) == 1


async def test_a_training_is_shown_without_its_environment(yard: Yard) -> None:
    (yard.folder / "iris.yaml").write_text(
        "iris: {source: sources/iris, env: {REGISTERED_MODEL_NAME: Iris, DB_LOGIN: hunter2}}"
    )
    async with calling(yard) as (client, _):
        started = await client.post("/admin/train/iris", json={"wait_seconds": 0})
        shown = await client.get(started.headers["location"])
        assert shown.status_code == 200
        assert "hunter2" not in shown.text + started.text
        await yard.clock.settle()
        assert yard.runtime.launched[0].env["DB_LOGIN"] == "hunter2"


async def test_what_a_rollout_can_be_asked(yard: Yard) -> None:
    version = yard.add_version()
    yard.answers.unready.add("sources/slow")
    async with calling(yard) as (client, _):
        body = {"name": "Iris", "ref": version, "serve_image": "sources/slow", "wait_seconds": 0}
        started = await client.post("/admin/roll", json=body)
        assert started.status_code == 202
        await yard.clock.settle()
        second = await client.post("/admin/roll", json=body | {"serve_image": "sources/other"})
        assert second.status_code == 409
        assert started.json()["id"] in second.text
        location = started.headers["location"]
        assert (await client.get(location)).json()["phase"] == "probing"
        assert (await client.post(f"{location}/abort")).status_code == 202
        await yard.clock.settle()
        assert (await client.get(location)).json()["phase"] == "rolled_back"
        assert (await client.post(f"{location}/abort")).status_code == 409
        assert (await client.get("/admin/rollouts/rol_none")).status_code == 404
        assert [r["id"] for r in (await client.get("/admin/rollouts")).json()] == [started.json()["id"]]


async def test_readiness_names_each_part(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        assert (await client.get("/readyz")).json() == {
            "ready": True,
            "router": "ok",
            "registry": "ok",
            "runtime": "ok",
            "proxy": "ok",
            "store": "ok",
        }
        yard.runtime.unavailable = True
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["runtime"] != "ok"
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("call", ["train/iris", "train_then_roll/iris", "roll", "rollback"])
async def test_what_needs_a_runtime_that_does_not_answer_is_503_and_nothing_is_recorded(
    yard: Yard, call: str
) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, engine):
        for version in (first, second):
            await yard.roll(engine, version)
        before = await engine.store.find(Rollout), await yard.proxy.read_traffic("default")
        yard.runtime.unavailable = True
        body = {"name": "Iris", "ref": first} if call == "roll" else {}
        answer = await client.post(f"/admin/{call}", json=body)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "runtime_unavailable"
        assert "was told not to answer" in answer.json()["error"]["message"]
        assert answer.headers["Retry-After"]
        assert (await engine.store.find(Rollout), await yard.proxy.read_traffic("default")) == before
        assert await engine.store.find(Training) == []
        yard.runtime.unavailable = False
        assert (await client.post("/admin/rollback")).status_code == 200


async def test_a_repeat_of_what_was_recorded_needs_no_runtime(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        train = partial(
            client.post, "/admin/train/iris", json={"wait_seconds": 0}, headers={"Idempotency-Key": "one"}
        )
        first = await train()
        yard.runtime.unavailable = True
        again = await train()
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_a_router_that_stands_by_says_so(yard: Yard) -> None:
    yard.lock.held_by_another = True
    async with calling(yard) as (client, _):
        for answer in (
            await client.get("/status"),
            await client.post("/admin/rollback"),
            await client.get("/readyz"),
        ):
            assert answer.status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_every_call_is_documented_with_an_example(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        assert (await client.get("/docs")).status_code == 200
        schema = (await client.get("/openapi.json")).json()
        for name in ("TrainBody", "TrainThenRollBody", "RollBody", "RollbackBody", "EndpointsBody"):
            assert schema["components"]["schemas"][name]["examples"]
        for path, calls in schema["paths"].items():
            for call in calls.values():
                assert call["summary"], path
                done = call["responses"][min(call["responses"])]
                assert all("example" in content for content in done["content"].values()), path


async def test_an_idempotency_key_holds_for_a_roll_and_its_strategy(yard: Yard) -> None:
    headers, version = {"Idempotency-Key": "tuesday"}, yard.add_version()
    body = {"name": "Iris", "ref": version, "rollout": {"strategy": "canary", "steps": [10, 50]}}
    other = {**body, "rollout": {"strategy": "canary", "steps": [10, 60]}}
    async with calling(yard) as (client, engine):
        first = await client.post("/admin/roll", json=body, headers=headers)
        again = await client.post("/admin/roll", json=body, headers=headers)
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json()["id"] == again.json()["id"]
        reused = await client.post("/admin/roll", json=other, headers=headers)
        assert (reused.status_code, reused.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert len(await engine.store.find(Rollout)) == 1
