"""MLflow goes away: what serves goes on serving; what needs MLflow waits, says so, and goes on afterwards."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.spine.stage import (
    Trainer,
    add_trainer,
    light_traffic,
    read_run,
    read_versions,
    wait_until_gone,
)
from tests.services.mlflow_server import MlflowServer, run_mlflow_server
from tests.services.yard import Yard, run_yard

pytestmark = pytest.mark.xdist_group("outages")  # its fixtures are dear: one worker is enough


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Of this module alone, so that it may be stopped."""
    with run_mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="module")
def yard(mlflow: MlflowServer) -> Iterator[Yard]:
    with run_yard(mlflow.url) as yard:
        yard.start()
        yield yard


@contextmanager
def outage(mlflow: MlflowServer) -> Iterator[None]:
    mlflow.kill()
    try:
        yield
    finally:
        mlflow.start()


def start_training(yard: Yard, trainer: Trainer, **parameters: object) -> str:
    """Path of a training that nobody waits for."""
    request = {"wait_seconds": 0, "parameters": parameters}
    return str(yard.post(f"/admin/train/{trainer.name}", request, status=202)["location"])


def wait_for_log(yard: Yard, location: str, line: str) -> None:
    yard.wait_for(lambda: line in (yard.get(location)["logs_tail"] or ""), f"the trainer's {line!r}")


def wait_until_it_waits(yard: Yard, mlflow: MlflowServer, location: str) -> dict[str, Any]:
    says = f"MLflow at 127.0.0.1:{mlflow.port} does not answer"
    yard.wait_for(lambda: says in (yard.get(location)["waiting_on"] or ""), f"{location} to wait")
    return yard.get(location)


def test_a_training_that_meets_an_outage_waits_for_it_wherever_it_stands(
    yard: Yard, mlflow: MlflowServer, tmp_path: Path
) -> None:
    trainer, go = add_trainer(yard), tmp_path / "go"
    done = start_training(yard, trainer, HOLD_AT_END=str(go))
    failing = start_training(yard, trainer, HOLD_UNTIL=str(go))
    wait_for_log(yard, done, "registered")
    wait_for_log(yard, failing, "training")
    with outage(mlflow):
        go.touch()
        new = start_training(yard, trainer)
        assert wait_until_it_waits(yard, mlflow, done)["phase"] == "registering"
        assert wait_until_it_waits(yard, mlflow, new)["phase"] == "queued"
        ended = wait_until_it_waits(yard, mlflow, failing)
        assert ended["outcome"] == "failed"  # its own logging met the outage
        # Refused, or cut off in the middle: it depends on what the trainer was about.
        assert re.search(r"Connection(Refused|Reset)Error|RemoteDisconnected", ended["logs_tail"])
        readiness = yard.call("GET", "/readyz")
        assert readiness.status_code == 503
        parts = readiness.json()
        assert "does not answer" in parts.pop("registry")
        assert parts == {"ready": False, "router": "ok", "runtime": "ok", "proxy": "ok", "store": "ok"}
    phases = {done: "succeeded", new: "succeeded", failing: "failed"}
    for location, phase in phases.items():
        yard.wait_for(lambda: yard.get(location)["phase"] == phase, f"{location} to end")  # noqa: B023
        ended = yard.get(location)
        assert ended["waiting_on"] is None
        assert read_run(yard, ended["run_id"])[0] == ("FINISHED" if phase == "succeeded" else "FAILED")
        wait_until_gone(yard, ended["id"])
    assert yard.get(done)["version"] == 1
    assert yard.get(new)["version"] == 2
    assert sorted(read_versions(yard, trainer.model)) == [1, 2]


def test_users_and_rollbacks_need_no_mlflow_and_the_alias_follows_when_it_is_back(
    yard: Yard, mlflow: MlflowServer
) -> None:
    trainer = add_trainer(yard)
    for version in (1, 2):
        assert yard.post(f"/admin/train_then_roll/{trainer.name}")["version"] == version
    yard.wait_for(lambda: yard.alias(trainer.model) == 2, "the alias of version 2")
    with light_traffic(yard) as seen, outage(mlflow):
        back = [yard.post("/admin/rollback") for _ in range(3)]
        assert [answer["version"] for answer in back] == [1, 2, 1]
        assert yard.predict().json()["predictions"] == [1]
        wait_until_it_waits(yard, mlflow, f"/admin/rollouts/{back[-1]['id']}")
        status = yard.get("/status")
        assert (status["model_version"], status["alias_in_step"], status["healthy"]) == (1, False, True)
        refused = yard.call("POST", "/admin/roll", {"name": trainer.model, "ref": 2})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert refused.json()["error"]["code"] == "registry_unavailable"
        assert "models that are being served stay up" in refused.json()["error"]["hint"]
    assert seen.failures == []
    yard.wait_for(lambda: yard.alias(trainer.model) == 1, "the alias to follow")
    yard.wait_for(lambda: yard.get("/status")["alias_in_step"], "the status to follow")
    # Nothing is left that would keep the next rollout out.
    assert yard.post("/admin/roll", {"name": trainer.model, "ref": 2})["version"] == 2
    phases = [yard.get(f"/admin/rollouts/{answer['id']}")["phase"] for answer in back]
    assert phases == ["rolled_back", "rolled_back", "succeeded"]


def test_an_mlflow_that_refuses_our_host_is_named_as_that(mlflow: MlflowServer) -> None:
    spelt_otherwise = f"http://127.1:{mlflow.port}"  # the loopback too, and in no list of allowed hosts
    assert httpx.get(f"{spelt_otherwise}/health").status_code == 200
    with run_yard(mlflow.url, {"MLFLOW_TRACKING_URI": spelt_otherwise}) as yard:
        yard.start_router()
        refusal = f"MLflow at 127.1:{mlflow.port} refuses the Host header"
        readiness = yard.call("GET", "/readyz")
        assert readiness.status_code == 503
        assert refusal in readiness.json()["registry"]
        answer = yard.post("/admin/roll", {"name": "Any", "ref": 1}, status=503)
        assert answer["error"]["code"] == "registry_refused_host"
        assert refusal in answer["error"]["message"]
        assert f"add 127.1:{mlflow.port} to the list in MLflow's --allowed-hosts" in answer["error"]["hint"]
        location = start_training(yard, add_trainer(yard))
        yard.wait_for(lambda: refusal in (yard.get(location)["waiting_on"] or ""), "the training to wait")
        yard.post(f"{location}/cancel", status=202)
        yard.wait_for(lambda: yard.get(location)["phase"] == "cancelled", "the training's end")


def test_without_mlflow_lineage_tells_what_the_router_knows_and_what_is_missing(
    yard: Yard, mlflow: MlflowServer
) -> None:
    trainer = add_trainer(yard)
    trained = yard.post(f"/admin/train_then_roll/{trainer.name}", {"reason": "before the outage"})
    with outage(mlflow):
        traced = yard.get("/lineage")
        assert traced["missing"].keys() == {"version", "run", "datasets"}
        assert "does not answer" in traced["missing"]["run"]
        assert traced["server"]["name"] == trained["active"]
        assert traced["model"]["uri"] == trained["model_uri"]
        assert (traced["run"]["run_id"], traced["run"]["metrics"]) == (trained["run_id"], {"rmse": 42.0})
        assert traced["training"]["id"] == trained["id"]
        assert traced["promotion"]["reason"] == "before the outage"
    yard.wait_for(lambda: yard.get("/lineage")["missing"] == {}, "the whole lineage")
