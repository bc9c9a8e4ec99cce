"""What the tests of the spine put on a yard and look at there: tiny trainers, light traffic, processes."""

import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from router.core.errors import UnsupportedSetting
from router.core.specs import Resources
from router.runtimes.process_cgroups import Cgroups
from tests.services.yard import Yard

SETTLED_SECONDS = 2.0
PAUSE_SECONDS = 0.01
ENDS = {"succeeded", "rolled_back", "failed"}


@dataclass(frozen=True)
class Trainer:
    """A trainer of the yard, and a model's name that no other test uses."""

    name: str
    model: str


def add_trainer(
    yard: Yard, source: str = "well", *, env: Mapping[str, object] | None = None, **fields: object
) -> Trainer:
    mark = uuid.uuid4().hex[:10]
    trainer = Trainer(f"tiny-{mark}", f"Tiny-{mark}")
    write_spec(yard, trainer, source, env=env, **fields)
    return trainer


def write_spec(
    yard: Yard,
    trainer: Trainer,
    source: str = "well",
    *,
    env: Mapping[str, object] | None = None,
    **fields: object,
) -> Path:
    entry = {
        "source": f"tests/sources/{source}",
        "env": {"REGISTERED_MODEL_NAME": trainer.model, **(env or {})},
        **fields,
    }
    return write_text(yard.specs / f"{trainer.name}.json", json.dumps({trainer.name: entry}))


def write_text(path: Path, text: str) -> Path:
    """As if written a while ago: the router waits for files that may be half-written."""
    path.write_text(text)
    then = time.time() - SETTLED_SECONDS
    os.utime(path, (then, then))
    return path


# --- processes -----------------------------------------------------------------------------------------


def home(yard: Yard, owner: str) -> Path:
    return yard.state / "process" / "workloads" / owner


def child_pid(yard: Yard, owner: str) -> int:
    return int(json.loads((home(yard, owner) / "started.json").read_text())["child"])


def owners(yard: Yard, prefix: str = "") -> set[str]:
    """Every workload that there is, running or not: `trn_...` are trainers, `srv_...` servers.

    Names with a dot are of what is just being deleted.
    """
    folder = yard.state / "process" / "workloads"
    names = {path.name for path in folder.iterdir()}
    return {name for name in names if name.startswith(prefix) and not name.startswith(".")}


def is_alive(pid: int) -> bool:
    """A killed process listens until the last of its threads is gone; its first may be a zombie before."""
    try:
        process = psutil.Process(pid)
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


def can_limit(**resources: Any) -> bool:
    """Whether this machine lets a process of ours have such a limit."""
    try:
        Cgroups("switchyard-tests").refuse_unsupported(Resources(**resources))
    except UnsupportedSetting:
        return False
    return True


def wait_for_end(yard: Yard, rollout_id: str) -> dict[str, Any]:
    """The rollout once it has ended, and its candidate too if it never got traffic."""
    path = f"/admin/rollouts/{rollout_id}"
    yard.wait_for(lambda: yard.get(path)["phase"] in ENDS, f"the end of {rollout_id}")
    rollout = yard.get(path)
    if rollout["phase"] != "succeeded" and rollout["server_id"] is not None:
        wait_until_gone(yard, rollout["server_id"])
    return rollout


def wait_until_gone(yard: Yard, owner: str) -> None:
    """What is put away goes just after its end is recorded."""
    yard.wait_for(lambda: not home(yard, owner).exists(), f"the last of {owner} to go")


# --- traffic -------------------------------------------------------------------------------------------


def switches(yard: Yard) -> str:
    """Changes with every switch of the default endpoint, and with nothing else."""
    return str((yard.state / "slots" / "default" / "current").readlink())


@dataclass
class Seen:
    served_by: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@contextmanager
def light_traffic(yard: Yard) -> Iterator[Seen]:
    """One client that predicts all the time; what it saw is complete once the block has ended."""
    seen, ended = Seen(), threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                answer = yard.predict()
            except httpx.TransportError as error:
                seen.failures.append(repr(error))
            else:
                seen.served_by[answer.headers.get("x-served-by", "")] += 1
                if answer.status_code != 200:
                    seen.failures.append(f"{answer.status_code} {answer.text}")
            ended.wait(PAUSE_SECONDS)

    client = threading.Thread(target=run)
    client.start()
    try:
        yield seen
    finally:
        ended.set()
        client.join()


# --- MLflow --------------------------------------------------------------------------------------------


def read_run(yard: Yard, run_id: str) -> tuple[str, dict[str, str]]:
    """Status and tags of a run."""
    answer = httpx.get(f"{yard.mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, timeout=30)
    run = answer.raise_for_status().json()["run"]
    return run["info"]["status"], {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def read_versions(yard: Yard, model: str) -> dict[int, dict[str, Any]]:
    url = f"{yard.mlflow_url}/api/2.0/mlflow/model-versions/search"
    answer = httpx.get(url, params={"filter": f"name = '{model}'"}, timeout=30)
    found = answer.raise_for_status().json().get("model_versions", [])
    return {int(version["version"]): version for version in found}
