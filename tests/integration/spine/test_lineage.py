"""History and lineage over a real MLflow: from the public URL back to the data, at two endpoints at once."""

import uuid
from collections.abc import Iterator

import pytest

from tests.integration.spine.stage import add_trainer, read_run
from tests.services.yard import Yard


@pytest.fixture
def endpoint(yard: Yard) -> Iterator[str]:
    name = f"lineage-{uuid.uuid4().hex[:8]}"
    yard.post("/admin/endpoints", {"name": name}, status=201)
    yield name
    assert yard.call("DELETE", f"/admin/endpoints/{name}").status_code == 200


def test_lineage_leads_from_the_url_back_to_the_digest_of_the_data(yard: Yard, endpoint: str) -> None:
    trainer = add_trainer(yard, endpoint=endpoint)
    trained = yard.post(f"/admin/train_then_roll/{trainer.name}", {"reason": "trial"})
    traced = yard.get(f"/admin/endpoints/{endpoint}/lineage")
    active = yard.traffic(endpoint)["active"]
    assert traced["url"] == f"{yard.public_url}/endpoints/{endpoint}/invocations"
    assert traced["url"] == f"{trained['public_url']}/invocations"
    assert (traced["server"]["id"], traced["server"]["healthy"]) == (active["server_id"], True)
    assert traced["image"] == {"reference": active["serve_image"], "digest": active["serve_digest"]}
    assert traced["model"]["uri"] == trained["model_uri"]
    assert traced["run"]["run_id"] == trained["run_id"]
    assert traced["run"]["status"] == read_run(yard, trained["run_id"])[0] == "FINISHED"
    (data,) = traced["datasets"]
    assert (data["name"], data["digest"], data["context"]) == ("points", "a1b2c3d4", "training")
    assert traced["training"]["id"] == trained["id"]
    assert traced["gates"]["rollout_id"] == traced["promotion"]["rollout_id"] == trained["rollout_id"]
    assert traced["promotion"]["reason"] == "trial"
    assert traced["missing"] == {}
    yard.wait_for(
        lambda: yard.alias(trainer.model, f"deployed-{endpoint}") == trained["version"], "the alias"
    )
    assert yard.alias(trainer.model) is None


def test_history_has_what_was_done_at_its_endpoint_and_nothing_else(yard: Yard, endpoint: str) -> None:
    trainer = add_trainer(yard)
    for _ in range(2):
        yard.post(f"/admin/train_then_roll/{trainer.name}", {"endpoint": endpoint})
    yard.post("/admin/rollback", {"endpoint": endpoint, "reason": "worse"})
    first = yard.get(f"/admin/endpoints/{endpoint}/history?limit=2")
    older = yard.get(f"/admin/endpoints/{endpoint}/history?limit=2&cursor={first['next_cursor']}")
    kinds = [(rollout["kind"], rollout["version"]) for rollout in first["rollouts"] + older["rollouts"]]
    assert kinds == [("rollback", 1), ("roll", 2), ("roll", 1)]
    assert older["next_cursor"] is None
    assert first["rollouts"][0]["reason"] == "worse"
    assert first["rollouts"][0]["replaced"]["model_uri"] == f"models:/{trainer.model}/2"
    assert first["rollouts"][1]["evidence"]["probe"]["ping"] == 200
    assert first["events"][0]["text"].startswith(f"endpoint {endpoint} is added")
