"""What must hold of the compose stack once it has come to rest, read where it lies: in the router's volumes,
in MLflow and in Docker."""

import json
from typing import Any, TypeVar

import httpx

from router.core.models import Endpoint, Record, Rollout, Server, ServerPhase, Training
from router.core.traffic import DEFAULT_ENDPOINT
from router.stores.encoding import decode
from router.stores.tables import TABLES
from tests.e2e.compose_stack import PLAIN, ComposeStack
from tests.integration.engine.aftermath import REST_SECONDS, find_alias_disagreement, find_unfinished

R = TypeVar("R", bound=Record)
WORK_SECONDS = 180.0
READ = """
import json, sqlite3, sys
rows = sqlite3.connect("/var/lib/switchyard/state/switchyard.db", timeout=30).execute(
    f"SELECT body FROM {sys.argv[1]} ORDER BY seq")
print(json.dumps([body for (body,) in rows]))
"""
TRAFFIC = "/var/lib/switchyard/slots/default/current/traffic.json"


def read_records(stack: ComposeStack, kind: type[R]) -> list[R]:
    """Oldest first."""
    read = ("exec", stack.container("router"), "python", "-c", READ, TABLES[kind].name)
    return [decode(kind, body) for body in json.loads(stack.docker(*read))]


def read_active(stack: ComposeStack) -> dict[str, Any]:
    """What the slot directory says."""
    found: dict[str, Any] = json.loads(stack.docker("exec", stack.container("caddy"), "cat", TRAFFIC))
    return dict(found["active"])


def read_alias(stack: ComposeStack, model: str) -> int:
    url = f"{stack.mlflow_url}/api/2.0/mlflow/registered-models/alias"
    answer = httpx.get(url, params={"name": model, "alias": "deployed"}, **PLAIN)
    return int(answer.raise_for_status().json()["model_version"]["version"])


def read_owners(stack: ComposeStack) -> list[str]:
    """Of every container that there is of this stack's, running or not."""
    of_ours = ("--all", "--filter", f"label=switchyard.instance={stack.project}")
    return stack.docker("ps", *of_ours, "--format", '{{.Label "switchyard.owner"}}').split()


def find_unsettled(stack: ComposeStack) -> list[str]:
    owners = read_owners(stack)
    unsettled = find_unfinished(
        read_records(stack, Training), read_records(stack, Rollout), read_records(stack, Server), set(owners)
    )
    unsettled += [f"{owner} has two containers" for owner in set(owners) if owners.count(owner) > 1]
    active = read_active(stack)
    [endpoint] = (found for found in read_records(stack, Endpoint) if found.id == DEFAULT_ENDPOINT)
    return unsettled + find_alias_disagreement(active, endpoint, read_alias(stack, active["model_name"]))


def is_at_work(stack: ComposeStack) -> bool:
    trainings, rollouts = read_records(stack, Training), read_records(stack, Rollout)
    return bool(find_unfinished(trainings, rollouts, [], set()))


def wait_until_at_rest(stack: ComposeStack) -> None:
    """Once the work is done no orphan container and no disagreement is left after 30 s."""
    stack.wait_for(lambda: not is_at_work(stack), "the end of all work", WORK_SECONDS)
    try:
        stack.wait_for(lambda: not find_unsettled(stack), "rest", REST_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{find_unsettled(stack)}: {error}") from error


def check_serves(stack: ComposeStack, version: int) -> str:
    """Store, slot directory, alias, the router's answer and users' answers agree on it. Its server's id."""
    wait_until_at_rest(stack)
    active, status = read_active(stack), stack.status()
    ready = [server for server in read_records(stack, Server) if server.phase is ServerPhase.READY]
    assert [(server.id, server.address) for server in ready] == [(active["server_id"], active["address"])]
    assert (active["model_version"], status["model_version"]) == (version, version)
    assert (status["server_id"], status["healthy"]) == (active["server_id"], True)
    assert stack.predict().raise_for_status().headers["x-served-by"] == active["address"]
    return str(active["server_id"])
