"""Endpoints, their history and lineage over HTTP: fields, status codes, and calls that make no sense."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from router.core.errors import RegistryUnavailable
from router.core.models import Rollout
from router.engine.engine import Engine
from router.registries.base import RunDataset
from tests.unit.api.calls import calling, post_and_end
from tests.unit.engine.yard import Yard

PROBLEM = {"detail", "error"}
DATA = RunDataset("flowers", "a1b2c3", "training", "http", '{"url": "http://data/flowers.csv"}')


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def roll(yard: Yard, client: httpx.AsyncClient, version: int, **fields: object) -> httpx.Response:
    answer = await client.post(
        "/admin/roll", json={"name": "Iris", "ref": version, "wait_seconds": 0, **fields}
    )
    await yard.clock.settle()
    return answer


# --- endpoints -------------------------------------------------------------------------------------------


async def test_an_endpoint_is_added_and_shown_with_what_serves_there(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        added = await client.post("/admin/endpoints", json={"name": "fraud", "reason": "cards"})
        assert added.status_code == 201
        (view,) = added.json()
        assert view["name"] == "fraud"
        assert view["url"] == "http://localhost:9000/endpoints/fraud/invocations"
        assert (view["alias"], view["phase"], view["reason"]) == ("deployed-fraud", "open", "cards")
        assert (view["model_uri"], view["healthy"]) == (None, False)
        await roll(yard, client, yard.add_version(), endpoint="fraud")
        shown = (await client.get("/admin/endpoints/fraud")).json()
        assert (shown["model_uri"], shown["healthy"], shown["rollout"]) == ("models:/Iris/1", True, None)
        assert shown["status"]["model_alias"] == "deployed-fraud"
        status = (await client.get("/status", params={"endpoint": "fraud"})).json()
        assert status["public_url"] == "http://localhost:9000/endpoints/fraud"
        assert {key: status[key] for key in shown["status"]} == shown["status"]
        assert (await client.get("/status")).json()["active"] is None
        names = [each["name"] for each in (await client.get("/admin/endpoints")).json()]
        assert names == ["default", "fraud"]


async def test_the_answer_to_a_roll_names_the_endpoints_own_url_and_alias(yard: Yard) -> None:
    version = yard.add_version()
    async with calling(yard) as (client, _):
        await client.post("/admin/endpoints", json={"name": "fraud", "alias": "cards-live"})
        await roll(yard, client, version, endpoint="fraud")
        body = (
            await client.post("/admin/roll", json={"name": "Iris", "ref": version, "endpoint": "fraud"})
        ).json()
        assert body["public_url"] == "http://localhost:9000/endpoints/fraud"
        assert body["alias"] == "cards-live"


async def test_a_removed_endpoint_is_unknown_and_its_history_stays(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        await client.post("/admin/endpoints", json={"names": ["fraud", "churn"]})
        await roll(yard, client, yard.add_version(), endpoint="fraud")
        gone = await client.delete("/admin/endpoints/fraud", params={"reason": "merged"})
        assert gone.status_code == 200
        assert (gone.json()["phase"], gone.json()["reason"]) == ("closed", "merged")
        for path in ("/admin/endpoints/fraud", "/status?endpoint=fraud", "/admin/endpoints/fraud/lineage"):
            lost = await client.get(path)
            assert (lost.status_code, lost.json()["error"]["code"]) == (404, "unknown_endpoint")
            assert (
                lost.json()["error"]["hint"]
                == "known endpoints: churn, default; POST /admin/endpoints adds others"
            )
        history = (await client.get("/admin/endpoints/fraud/history")).json()
        assert [rollout["model_uri"] for rollout in history["rollouts"]] == ["models:/Iris/1"]
        assert history["events"][-1]["text"] == "endpoint fraud is gone"


async def test_a_removal_that_takes_longer_than_the_wait_is_202_with_where_to_look(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await client.post("/admin/endpoints", json={"name": "fraud"})
        await roll(yard, client, yard.add_version(), endpoint="fraud")
        active = (await engine.context.proxy.read_traffic("fraud")).active
        assert active is not None
        yard.proxy.busy[active.address] = 1
        answer = await client.delete("/admin/endpoints/fraud", params={"wait_seconds": 0})
        assert (answer.status_code, answer.headers["location"]) == (202, "/admin/endpoints/fraud")
        await yard.clock.settle()
        shown = await client.get("/admin/endpoints/fraud")
        assert (shown.status_code, shown.json()["phase"]) == (200, "closing")
        yard.proxy.busy.clear()
        await yard.clock.advance(1)
        assert (await client.get("/admin/endpoints/fraud")).status_code == 404


async def test_an_endpoint_with_a_running_rollout_is_409_with_its_id(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        await client.post("/admin/endpoints", json={"name": "fraud"})
        yard.answers.unready.add("sources/iris")
        rollout = (await roll(yard, client, yard.add_version(), endpoint="fraud")).json()
        refused = await client.delete("/admin/endpoints/fraud")
        assert (refused.status_code, refused.json()["detail"]) == (409, {"rollout_id": rollout["id"]})
        shown = (await client.get("/admin/endpoints/fraud")).json()
        assert shown["rollout"] == rollout["id"]
        forced = await client.delete("/admin/endpoints/fraud", params={"force": True, "wait_seconds": 0})
        assert forced.status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "fraud", "names": ["churn"]},
        {"names": []},
        {"names": ["fraud", "fraud"]},
        {"names": ["fraud", "churn"], "alias": "live"},
        {"name": "../etc"},
        {"name": "a/b"},
        {"name": ".hidden"},
        {"name": ""},
        {"name": "ü"},
        {"name": "x" * 64},
        {"name": "fraud", "alias": "latest"},
        {"name": "fraud", "alias": "v3"},
        {"name": "fraud", "alias": "with space"},
        {"name": "fraud", "reason": ""},
        {"name": "fraud", "nmae": "typo"},
    ],
)
async def test_endpoints_that_make_no_sense_are_422(yard: Yard, body: dict[str, object]) -> None:
    async with calling(yard) as (client, _):
        answer = await client.post("/admin/endpoints", json=body)
        assert answer.status_code == 422
        assert set(answer.json()) == PROBLEM
        assert len((await client.get("/admin/endpoints")).json()) == 1


async def test_the_default_endpoint_and_unknown_ones_are_not_removed(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        assert (await client.delete("/admin/endpoints/default")).status_code == 422
        assert (await client.delete("/admin/endpoints/nowhere")).status_code == 404
        assert (await client.delete("/admin/endpoints/%2e%2e")).status_code in {404, 405, 422}
        assert (await client.get("/admin/endpoints/default")).status_code == 200


async def test_a_taken_name_or_alias_is_409(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        await client.post("/admin/endpoints", json={"name": "fraud", "alias": "live"})
        for body in ({"name": "FRAUD"}, {"name": "churn", "alias": "live"}):
            answer = await client.post("/admin/endpoints", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "endpoint_exists")
        assert (await client.post("/admin/endpoints", json={"name": "fraud"})).status_code == 201


async def test_a_training_goes_to_its_specs_endpoint_and_a_request_says_otherwise(yard: Yard) -> None:
    spec = yard.folder / "iris.yaml"
    spec.write_text(spec.read_text() + "  endpoint: fraud\n")
    async with calling(yard) as (client, engine):
        path = "/admin/train_then_roll/iris"
        lost = await client.post(path)
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "unknown_endpoint")
        await client.post("/admin/endpoints", json={"names": ["fraud", "churn"]})
        by_spec = await post_and_end(yard, client, engine, path, json={"reason": "November"})
        assert by_spec.json()["public_url"] == "http://localhost:9000/endpoints/fraud"
        assert by_spec.json()["alias_set"] == "deployed-fraud"
        by_request = await post_and_end(yard, client, engine, path, json={"endpoint": "churn"})
        assert by_request.json()["public_url"] == "http://localhost:9000/endpoints/churn"
        rollouts = await engine.store.find(Rollout)
        assert [(rollout.endpoint, rollout.reason) for rollout in rollouts] == [
            ("fraud", "November"),
            ("churn", None),
        ]
        refused = await client.post("/admin/train/iris", json={"endpoint": "churn"})
        assert refused.status_code == 422


# --- history ---------------------------------------------------------------------------------------------


async def test_history_tells_who_and_why_and_what_replaced_what(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, _):
        await roll(yard, client, first, reason="the first one")
        await roll(yard, client, second, reason="better on weekends")
        await client.post("/admin/rollback", json={"reason": "worse on Mondays", "wait_seconds": 0})
        await yard.clock.settle()
        page = (await client.get("/admin/endpoints/default/history")).json()
        assert page["next_cursor"] is None
        back, two, one = page["rollouts"]
        assert [each["reason"] for each in (back, two, one)] == [
            "worse on Mondays",
            "better on weekends",
            "the first one",
        ]
        assert [each["kind"] for each in (back, two, one)] == ["rollback", "roll", "roll"]
        assert {each["requested_by"] for each in (back, two, one)} == {"127.0.0.1"}
        assert one["replaced"] is None
        assert (two["replaced"]["model_uri"], two["model_uri"]) == ("models:/Iris/1", "models:/Iris/2")
        assert (back["replaced"]["model_uri"], back["model_uri"]) == ("models:/Iris/2", "models:/Iris/1")
        assert two["replaced"]["serve_digest"] == two["serve_digest"] != ""
        assert two["evidence"]["probe"]["predictions"] == "[1.5]"
        assert two["decision"]["outcome"] == "succeeded"
        assert "users get models:/Iris/2" in " ".join(event["text"] for event in two["events"])


async def test_a_rollout_that_failed_stands_there_with_the_reason(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        yard.answers.predictions["sources/iris"] = [None]
        await roll(yard, client, yard.add_version())
        (failed,) = (await client.get("/admin/endpoints/default/history")).json()["rollouts"]
        assert failed["decision"]["outcome"] == "failed"
        assert "not finite" in failed["decision"]["why"]


@pytest.mark.parametrize(
    ("call", "body", "told"),
    [("pause", {}, "paused"), ("weight", {"weight": 20}, "set to 20%"), ("promote", {}, "promoted")],
)
async def test_history_tells_who_steered_a_rollout_and_why(
    yard: Yard, call: str, body: dict[str, Any], told: str
) -> None:
    async with calling(yard) as (client, _):
        await roll(yard, client, yard.add_version())
        beside = {"rollout": {"promotion": "manual"}}
        rollout = (await roll(yard, client, yard.add_version(), **beside)).json()
        await client.post(f"/admin/rollouts/{rollout['id']}/{call}", json={**body, "reason": "a hunch"})
        await yard.clock.settle()
        (steered, *_) = (await client.get("/admin/endpoints/default/history")).json()["rollouts"]
        assert f"{told} by 127.0.0.1: a hunch" in [event["text"] for event in steered["events"]]
        promotion = (await client.get("/admin/endpoints/default/lineage")).json()["promotion"]
        assert promotion["promoted_by"] == "127.0.0.1"


async def test_history_tells_who_aborted_a_rollout_and_why(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        yard.answers.unready.add("sources/iris")
        rollout = (await roll(yard, client, yard.add_version())).json()
        await client.post(f"/admin/rollouts/{rollout['id']}/abort", json={"reason": "wrong version"})
        await yard.clock.settle()
        (aborted,) = (await client.get("/admin/endpoints/default/history")).json()["rollouts"]
        assert aborted["decision"]["outcome"] == "rolled_back"
        told = [event["text"] for event in aborted["events"]]
        assert "aborted by 127.0.0.1: wrong version" in told


async def test_history_is_read_page_by_page(yard: Yard) -> None:
    versions = [yard.add_version() for _ in range(5)]
    async with calling(yard) as (client, _):
        await client.post("/admin/endpoints", json={"name": "fraud"})
        for version in versions:
            await roll(yard, client, version)
            await yard.clock.advance(1)
        await roll(yard, client, versions[0], endpoint="fraud")
        path, seen, cursor = "/admin/endpoints/default/history", [], None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get(path, params=query)).json()
            seen.append([rollout["version"] for rollout in page["rollouts"]])
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == [[5, 4], [3, 2], [1]]
        assert (await client.get(path, params={"cursor": "rol_99999"})).status_code == 404
        assert (await client.get(path, params={"cursor": "nonsense!"})).status_code == 422
        assert (await client.get(path, params={"limit": 0})).status_code == 422
        of_fraud = (await client.get("/admin/endpoints/fraud/history")).json()["rollouts"][0]["id"]
        assert (await client.get(path, params={"cursor": of_fraud})).status_code == 404
        assert (await client.get("/admin/endpoints/nowhere/history")).status_code == 404


# --- lineage ---------------------------------------------------------------------------------------------


async def train_and_roll(yard: Yard, client: httpx.AsyncClient, engine: Engine) -> str:
    """The id of the training."""
    answer = await post_and_end(
        yard,
        client,
        engine,
        "/admin/train_then_roll/iris",
        json={"reason": "November", "parameters": {"N": 3}},
    )
    training_id: str = answer.json()["id"]
    run_id = answer.json()["run_id"]
    yard.registry.log_parameters(run_id, {"n": "3"})
    yard.registry.log_dataset(run_id, DATA)
    return training_id


async def test_lineage_leads_from_the_url_back_to_the_data_and_the_promoter(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        training_id = await train_and_roll(yard, client, engine)
        (rollout,) = await engine.store.find(Rollout)
        traced = (await client.get("/lineage")).json()
        assert traced == (await client.get("/admin/endpoints/default/lineage")).json()
        assert traced["url"] == "http://localhost:9000/invocations"
        assert traced["server"]["id"] == rollout.server_id
        assert traced["image"] == {"reference": "sources/iris", "digest": rollout.serve_digest}
        assert (traced["model"]["uri"], traced["model"]["aliases"]) == ("models:/Iris/1", ["deployed"])
        assert traced["run"]["parameters"] == {"n": "3"}
        assert traced["datasets"][0]["digest"] == "a1b2c3"
        assert (traced["training"]["id"], traced["training"]["trainer"]) == (training_id, "iris")
        assert traced["gates"]["rollout_id"] == rollout.id
        assert traced["gates"]["evidence"]["probe"]["ping"] == 200
        promotion = traced["promotion"]
        assert (promotion["rollout_id"], promotion["requested_by"], promotion["reason"]) == (
            rollout.id,
            "127.0.0.1",
            "November",
        )
        assert traced["missing"] == {}


async def test_without_mlflow_lineage_tells_what_the_router_knows_and_what_is_missing(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        training_id = await train_and_roll(yard, client, engine)
        yard.registry.fail_with(RegistryUnavailable("MLflow is away"))
        answer = await client.get("/lineage")
        assert answer.status_code == 200
        traced = answer.json()
        assert traced["missing"] == dict.fromkeys(("version", "run", "datasets"), "MLflow is away")
        assert traced["model"]["uri"] == "models:/Iris/1"
        assert traced["training"]["id"] == training_id
        assert traced["run"]["metrics"] == {"rmse": 55.0}
        assert traced["datasets"] is None
        assert traced["promotion"]["reason"] == "November"


async def test_without_mlflow_lineage_does_not_say_that_no_training_made_a_version(yard: Yard) -> None:
    version = yard.add_version()
    async with calling(yard) as (client, _):
        await roll(yard, client, version)
        known = (await client.get("/lineage")).json()["missing"]["training"]
        assert known == "no training of this router made it, as far as is known"
        yard.registry.fail_with(RegistryUnavailable("MLflow is away"))
        assert (await client.get("/lineage")).json()["missing"]["training"] == "MLflow is away"


async def test_after_a_rollback_the_promoter_is_who_rolled_back_and_the_proof_is_the_first_ones(
    yard: Yard,
) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, engine):
        await roll(yard, client, first, reason="first")
        await roll(yard, client, second)
        await client.post("/admin/rollback", json={"reason": "back", "wait_seconds": 0})
        await yard.clock.settle()
        oldest, *_ = await engine.store.find(Rollout)
        traced = (await client.get("/lineage")).json()
        assert (traced["promotion"]["kind"], traced["promotion"]["reason"]) == ("rollback", "back")
        assert traced["gates"]["rollout_id"] == oldest.id
        assert traced["missing"]["training"]


async def test_a_server_that_replaced_a_dead_one_has_its_promoter(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        rollout = (await roll(yard, client, yard.add_version(), reason="first")).json()
        yard.runtime.end(yard.runtime.running()[0], 137)
        await yard.clock.advance(5)
        traced = (await client.get("/lineage")).json()
        assert traced["promotion"]["rollout_id"] == rollout["id"]
        assert traced["server"]["id"] != (await engine.store.get(Rollout, rollout["id"])).server_id


async def test_before_the_first_rollout_lineage_says_that_nothing_serves(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        traced = (await client.get("/lineage")).json()
        assert traced["missing"] == {"server": "nothing is serving yet"}
        assert traced["server"] is None


async def test_metrics_that_are_no_numbers_do_not_break_lineage(yard: Yard) -> None:
    async with calling(yard) as (client, engine):
        await train_and_roll(yard, client, engine)
        (rollout,) = await engine.store.find(Rollout)
        yard.registry.log_metrics(str(rollout.run_id), {"loss": float("nan"), "worst": float("inf")})
        answer = await client.get("/lineage")
        assert answer.status_code == 200
