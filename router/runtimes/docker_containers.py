"""What runs in Docker for us: found by its labels, and described in the words of the port."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from router.core.workload import Role, WorkloadState, WorkloadStatus
from router.runtimes.docker_client import DockerClient, Refused, filters_of

OWNER, INSTANCE, ROLE, NAME = (f"switchyard.{word}" for word in ("owner", "instance", "role", "name"))
PORT_VARIABLE = "SERVE_PORT"
ROLES = frozenset(map(str, Role))
NEVER_STARTED = "0001-01-01"
GOING = frozenset({"removing", "dead"})
RUNNING = frozenset({"running", "paused", "restarting"})

log = structlog.get_logger()


@dataclass(frozen=True)
class Container:
    """As a listing tells; `state` may lag behind by a moment."""

    id: str
    name: str
    owner: str
    label_name: str
    state: str
    created: float

    @property
    def rank(self) -> tuple[bool, bool, float, str]:
        """Of several with one owner the least one counts: what is dialled, what serves, the first.

        A copy may run on while the one that is dialled is dead.
        """
        return self.name != self.label_name, self.state not in RUNNING, self.created, self.id


class Containers:
    """Everything that has our instance's label and an owner."""

    def __init__(self, client: DockerClient, instance: str) -> None:
        self._client = client
        self.instance = instance

    async def groups(self, owner: str | None = None) -> dict[str, list[Container]]:
        """By owner; those that count first."""
        label = OWNER if owner is None else f"{OWNER}={owner}"
        filters = filters_of({"label": [f"{INSTANCE}={self.instance}", label]})
        found: dict[str, list[Container]] = {}
        for each in await self._client.call("GET", "/containers/json", all="1", filters=filters):
            container = _read_listed(each)
            if container.state not in GOING:
                found.setdefault(container.owner, []).append(container)
        return {each: sorted(group, key=lambda one: one.rank) for each, group in found.items()}

    async def find(self, owner: str) -> list[Container]:
        return (await self.groups(owner)).get(owner, [])

    async def find_launched(self, owner: str) -> Container | None:
        return next((each for each in await self.find(owner) if each.state != "created"), None)

    async def inspect(self, container_id: str) -> WorkloadState | None:
        """Waits for a change that is going on. None: it is gone, or was never started."""
        try:
            return read_state(await self._client.call("GET", f"/containers/{container_id}/json"))
        except Refused as refused:
            if refused.answer == 404:
                return None
            raise

    async def states(self) -> list[WorkloadState]:
        launched = [
            next((each for each in group if each.state != "created"), None)
            for group in (await self.groups()).values()
        ]
        inspected = await asyncio.gather(*(self.inspect(each.id) for each in launched if each is not None))
        return [state for state in inspected if state is not None]

    async def remove(self, container_id: str) -> None:
        """With what it wrote. Running: it is killed."""
        try:
            await self._client.call("DELETE", f"/containers/{container_id}", force="1", v="1")
        except Refused as refused:
            if refused.answer not in (404, 409):  # gone, or going
                raise

    async def kill(self, container_id: str, signal: str) -> None:
        try:
            await self._client.call("POST", f"/containers/{container_id}/kill", signal=signal)
        except Refused as refused:
            if refused.answer not in (404, 409):  # gone, or ended
                raise

    async def remove_doubles(self, group: list[Container]) -> None:
        """Two with one owner: somebody copied one. The copy has our labels, or it would not be here."""
        launched = [each for each in group if each.state != "created"]
        for double in launched[1:]:
            log.warning(
                "removing a container whose owner has another one",
                owner=double.owner,
                removed=double.name,
                kept=launched[0].name,
            )
            await self.remove(double.id)


def _read_listed(each: dict[str, Any]) -> Container:
    labels = each["Labels"]
    return Container(
        id=each["Id"],
        name=each["Names"][0].removeprefix("/") if each["Names"] else "",
        owner=labels[OWNER],
        label_name=labels.get(NAME, ""),
        state=each["State"],
        created=each["Created"],
    )


def read_state(inspected: dict[str, Any]) -> WorkloadState | None:
    state, config = inspected["State"], inspected["Config"]
    if state["Status"] in {"created", *GOING}:
        return None
    labels, name = config["Labels"], inspected["Name"].removeprefix("/")
    role, port = labels.get(ROLE), _read_port(config["Env"] or ())
    if role not in ROLES or (role == Role.SERVER and port is None):
        log.warning("left alone: a container with our labels that is none of ours", container=name)
        return None
    running = state["Status"] in RUNNING
    return WorkloadState(
        owner=labels[OWNER],
        name=name,
        role=Role(role),
        status=WorkloadStatus.RUNNING if running else WorkloadStatus.EXITED,
        address=f"{name}:{port}" if role == Role.SERVER else None,
        exit_code=None if running else state["ExitCode"],
        out_of_memory=None if running else state["OOMKilled"],
        started_at=_read_time(state["StartedAt"]),
        finished_at=None if running else _read_time(state["FinishedAt"]),
    )


def _read_port(env: Sequence[str]) -> str | None:
    """As it was told to the server, whatever the settings say by now."""
    told = (each.partition("=")[2] for each in reversed(env) if each.startswith(f"{PORT_VARIABLE}="))
    return next(told, None)


def _read_time(text: str) -> float | None:
    return None if text.startswith(NEVER_STARTED) else datetime.fromisoformat(text).timestamp()
