"""The calls that existing clients make, field by field, and what they get for calls that make no sense."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from router.api.app import make_app
from router.core.models import Rollout, Training
from router.engine.engine import Engine
from tests.unit.engine.yard import EXAMPLE, Yard

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


@asynccontextmanager
async def calling(yard: Yard) -> AsyncIterator[tuple[httpx.AsyncClient, Engine]]:
    async with yard.run() as engine:
        transport = httpx.ASGITransport(make_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            yield client, engine


async def end_training(yard: Yard, engine: Engine, exit_code: int = 0) -> None:
    """As soon as a trainer runs, it registers a version and ends."""
    while not (running := await engine.store.find(Training, phases=["running"])):
        await yard.clock.settle()
        await checkpoint()
    yard.registry.log_metrics(str(running[0].run_id), {"rmse": 55.0})
    yard.registry.add_version("Iris", running[0].run_id, input_example=EXAMPLE)
    yard.runtime.end(running[0].id, exit_code)


async def post_and_end(
    yard: Yard,
    client: httpx.AsyncClient,
    engine: Engine,
    path: str,
    exit_code: int = 0,
    **request: object,
) -> httpx.Response:
    answers: list[httpx.Response] = []
    async with anyio.create_task_group() as group:
        group.start_soon(partial(end_training, yard, engine, exit_code))
        answers.append(await client.post(path, **request))  # type: ignore[arg-type]
    return answers[0]


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


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/admin/train/rose", {}, 404, "rose"),
        ("/admin/train/iris", {"image_key": "gpu"}, 400, "gpu"),
        ("/admin/train/iris", {"wait_seconds": -1}, 422, "wait_seconds"),
        ("/admin/train/iris", {"wait_seconds": 86_401}, 422, "wait_seconds"),
        ("/admin/train/iris", {"wait": 1}, 422, "body.wait"),
        ("/admin/train/iris", {"parameters": {"PATH": "/bin"}}, 422, "parameters.PATH"),
        ("/admin/train/iris", {"parameters": {"A": [1]}}, 422, "parameters.A"),
        ("/admin/train/iris", {"parameters": {"A": "x\ny"}}, 422, "parameters.A"),
        ("/admin/train/..%2f..%2fetc", {}, 422, "trainer"),
        ("/admin/train/%2e%2e", {}, 422, "trainer"),
        ("/admin/train/a%00b", {}, 422, "trainer"),
        ("/admin/train/a%0ab", {}, 422, "trainer"),
        ("/admin/roll", {"name": "Iris", "ref": "latest"}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": 0}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": 1.5}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": True}, 422, "ref"),
        ("/admin/roll", {"name": "../Iris", "ref": 1}, 422, "name"),
        ("/admin/roll", {"name": "Iris\n", "ref": 1}, 422, "name"),
        ("/admin/roll", {"name": "Iris", "ref": 99}, 404, "99"),
        ("/admin/roll", {"name": "Iris", "ref": "@nobody"}, 404, "nobody"),
        ("/admin/roll", {"name": "Iris", "ref": 1, "wait_ready_seconds": 901}, 422, "wait_ready_seconds"),
        ("/admin/roll", {"name": "Iris", "ref": 1, "wait_ready_seconds": 0}, 422, "wait_ready_seconds"),
        ("/admin/roll", {"name": "Iris"}, 422, "ref"),
        ("/admin/rollback", {"endpoint": "nowhere"}, 404, "nowhere"),
    ],
)
async def test_a_bad_request_is_refused_and_starts_nothing(
    yard: Yard, path: str, body: dict[str, object], status: int, named: str
) -> None:
    async with calling(yard) as (client, _):
        answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert named in error["message"] + str(error["hint"])
        assert answer.json()["detail"]
        assert yard.runtime.launched == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"wait_seconds": NaN}', b"[]"])
async def test_a_body_that_is_no_json_object_is_a_client_error(yard: Yard, content: bytes) -> None:
    async with calling(yard) as (client, _):
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/admin/train/iris", content=content, headers=headers)
        assert answer.status_code in {400, 422}
        assert answer.json()["error"]["code"]


async def test_a_body_that_is_not_declared_as_json_is_told_the_header_that_it_lacks(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await client.post("/admin/train/iris", content=b'{"wait_seconds": 0}', headers=headers)
        assert answer.status_code == 422
        assert "Content-Type: application/json" in answer.json()["error"]["hint"]


async def test_a_body_over_one_mebibyte_is_413_with_and_without_a_declared_length(yard: Yard) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    async with calling(yard) as (client, _):
        assert (await client.post("/admin/roll", content=b" " * 1_100_000)).status_code == 413
        answer = await client.post("/admin/roll", content=stream())
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_page_of_another_site_cannot_make_a_browser_send_commands(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, engine):
        await yard.roll(engine, first)
        await yard.roll(engine, second)
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await client.post("/admin/rollback", headers=headers)).status_code == 403
        assert await yard.served_version() == second
        assert (
            await client.post("/admin/rollback", headers={"Origin": "http://localhost:8000"})
        ).status_code == 200


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
