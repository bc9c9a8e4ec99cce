"""What must hold once everything has come to rest, whoever was killed before.

Everything is read where it lies (store, slot directory, MLflow, processes), not where the router says it is.
"""

import json
import sqlite3
from collections.abc import Set
from contextlib import closing
from typing import Any, TypeVar

import psutil

from router.core.models import Endpoint, Record, Rollout, Server, ServerPhase, Training
from router.stores.encoding import decode
from router.stores.tables import TABLES
from tests.services.yard import Yard

R = TypeVar("R", bound=Record)
REST = {ServerPhase.READY, ServerPhase.WARM, ServerPhase.STOPPED}
REST_SECONDS = 30.0


def read_records(yard: Yard, kind: type[R]) -> list[R]:
    """Oldest first."""
    with closing(sqlite3.connect(yard.state / "switchyard.db", timeout=30)) as connection:
        rows = connection.execute(f"SELECT body FROM {TABLES[kind].name} ORDER BY seq").fetchall()  # noqa: S608
    return [decode(kind, body) for (body,) in rows]


def read_homes(yard: Yard) -> dict[str, set[int]]:
    """Owner of each workload that there is -> pids of its shim and its child, as they were started."""
    homes = {}
    for home in (yard.state / "process" / "workloads").glob("*"):
        started = home / "started.json"
        found = json.loads(started.read_text()) if started.exists() else {}
        homes[home.name] = {found[key] for key in ("shim", "child") if key in found}
    return homes


def find_processes(yard: Yard) -> set[int]:
    """Every process that works in a workload's folder, whether or not anybody knows it."""
    folder = str(yard.state / "process" / "workloads")
    found = set()
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(folder):
                found.add(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def find_unsettled(yard: Yard) -> list[str]:
    """What is still on its way, or left over."""
    homes = read_homes(yard)
    unsettled = find_unfinished(
        read_records(yard, Training), read_records(yard, Rollout), read_records(yard, Server), homes.keys()
    )
    known, found = set().union(*homes.values()), find_processes(yard)
    unsettled += [f"process {pid} is left over" for pid in found - known]
    unsettled += [f"process {pid} does not run" for pid in known - found]
    active = yard.traffic()["active"]
    if active is None:
        return unsettled
    endpoint = next(record for record in read_records(yard, Endpoint) if record.id == "default")
    return unsettled + find_alias_disagreement(active, endpoint, yard.alias(active["model_name"]))


def find_unfinished(
    trainings: list[Training], rollouts: list[Rollout], servers: list[Server], owners: Set[str]
) -> list[str]:
    """`owners`: of the workloads that there are."""
    unfinished = [f"{t.id} is {t.phase}" for t in trainings if not t.phase.terminal]
    unfinished += [f"{r.id} is {r.phase}" for r in rollouts if not r.phase.terminal]
    unfinished += [f"{server.id} is {server.phase}" for server in servers if server.phase not in REST]
    live = {server.id for server in servers if not server.phase.terminal}
    unfinished += [f"workload {owner} is left over" for owner in owners - live]
    unfinished += [f"server {owner} does not run" for owner in live - owners]
    return unfinished


def find_alias_disagreement(active: dict[str, Any], endpoint: Endpoint, set_to: int | None) -> list[str]:
    served = (active["model_name"], active["model_version"])
    remembered = (endpoint.alias_model, endpoint.alias_version)
    agree = remembered == served and set_to == served[1]
    return [] if agree else [f"{served} is served, the alias is {set_to}, remembered {remembered}"]


def wait_until_at_rest(yard: Yard) -> None:
    """No orphan process, no unfinished work and no disagreement is left after 30 s."""
    try:
        yard.wait_for(lambda: not find_unsettled(yard), "rest", REST_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{find_unsettled(yard)}: {error}") from error


def check_serves(yard: Yard, model: str, version: int) -> str:
    """Store, slot directory, alias, the router's answer and users' answers agree on it. Its server's id."""
    wait_until_at_rest(yard)
    traffic = yard.traffic()
    active = traffic["active"]
    assert (active["model_name"], active["model_version"]) == (model, version)
    assert traffic["candidate"] is None
    servers = [server for server in read_records(yard, Server) if server.endpoint == "default"]
    ready = [server for server in servers if server.phase is ServerPhase.READY]
    assert [(server.id, server.address) for server in ready] == [(active["server_id"], active["address"])]
    status = yard.get("/status")
    assert (status["server_id"], status["model_version"]) == (active["server_id"], version)
    assert status["model_alias"] == "deployed"
    yard.wait_for(lambda: bool(yard.get("/status")["healthy"]), "a ping that a busy machine answers in time")
    answer = yard.predict()
    assert answer.status_code == 200
    assert answer.headers["x-served-by"] == active["address"]
    assert answer.json() == {"predictions": [version], "server": active["server_id"]}
    return str(active["server_id"])
