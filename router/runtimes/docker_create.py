"""What a container is created with: the whole body, so that a reviewer sees it, and the socket proxy too.

The command is the image's own. Privileges, capabilities and the root filesystem are the proxy's to set.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from router.core.errors import UnsupportedSetting
from router.core.specs import Resources
from router.core.workload import Role
from router.runtimes.base import Workload
from router.runtimes.docker_containers import INSTANCE, NAME, OWNER, PORT_VARIABLE, ROLE

# One for each model: what a model writes there can harm no other.
CACHE_PATH = "/var/cache/switchyard"
LEAST_MEMORY = 6 * 1024**2  # Docker's own
LEAST_CPUS = 0.01
MOST_ENVIRONMENT = 48 * 1024  # bytes of JSON: the socket proxy takes 64 KiB, volumes and labels among them


@dataclass(frozen=True)
class Placement:
    """What the settings say of every container."""

    instance: str = "switchyard"
    trainer_network: str = "switchyard-trainers"
    server_network: str = "switchyard-servers"
    serve_port: int = 8080
    volume_prefix: str = "switchyard-data-"
    cache_prefix: str | None = None
    pids_limit: int = 1024
    log_max_size: str = "10m"
    log_max_files: int = 3
    gpus: bool = False
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def network_of(self, role: Role) -> str:
        return self.trainer_network if role is Role.TRAINER else self.server_network


def refuse_unsupported(
    placement: Placement,
    resources: Resources,
    gpus: str | None,
    volumes: Collection[str],
    env: Mapping[str, str],
) -> None:
    if gpus is not None and not placement.gpus:
        raise UnsupportedSetting(
            "gpus cannot be honoured: the router has not been told that this engine has any",
            hint="leave `gpus` out, or set DOCKER_GPUS=true, and allow them in the socket proxy",
        )
    if resources.memory is not None and resources.memory < LEAST_MEMORY:
        raise UnsupportedSetting("resources.memory cannot be honoured: Docker gives no less than 6m")
    if resources.cpus is not None and resources.cpus < LEAST_CPUS:
        raise UnsupportedSetting("resources.cpus cannot be honoured: Docker gives no less than 0.01")
    for name in volumes:
        if not name.startswith(placement.volume_prefix):
            raise UnsupportedSetting(
                f"volumes.{name} cannot be honoured: only volumes whose name begins with"
                f" {placement.volume_prefix} are for trainers",
                hint="copy the data into such a volume, or change DOCKER_VOLUME_PREFIX",
            )
    size = len(json.dumps(list_environment({**placement.environment, **env})))
    if size > MOST_ENVIRONMENT:
        raise UnsupportedSetting(
            f"env cannot be honoured: it has {size} bytes, and a container gets {MOST_ENVIRONMENT} at most",
            hint="put the data into a volume or behind a URL, and name that in `env`",
        )


def list_environment(env: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in env.items()]


def make_body(workload: Workload, image: str, placement: Placement) -> dict[str, Any]:
    env = {**placement.environment, **workload.env}
    if workload.role is Role.SERVER:
        # All addresses: those of one container, in the network of servers.
        env |= {PORT_VARIABLE: str(placement.serve_port), "SERVE_HOST": "0.0.0.0"}  # noqa: S104
    return {
        "Image": image,
        "Env": list_environment(env),
        "Labels": make_labels(workload, placement.instance),
        "HostConfig": make_host(workload, placement),
    }


def make_labels(workload: Workload, instance: str) -> dict[str, str]:
    labels = {
        OWNER: workload.owner,
        INSTANCE: instance,
        ROLE: str(workload.role),
        NAME: workload.name,
        "switchyard.endpoint": workload.endpoint,
        "switchyard.version": workload.env.get("MODEL_VERSION"),
    }
    return {name: value for name, value in labels.items() if value is not None}


def make_host(workload: Workload, placement: Placement) -> dict[str, Any]:
    resources = workload.resources
    rotation = {"max-size": placement.log_max_size, "max-file": str(placement.log_max_files)}
    host: dict[str, Any] = {
        "NetworkMode": placement.network_of(workload.role),
        "PidsLimit": resources.pids or placement.pids_limit,
        "LogConfig": {"Type": "json-file", "Config": rotation},
        "Init": True,  # else SIGTERM would not end a command that does not handle it
    }
    if resources.memory is not None:
        host |= {"Memory": resources.memory, "MemorySwap": resources.memory}  # no swap beside it
    if resources.cpus is not None:
        host["NanoCpus"] = round(resources.cpus * 1e9)
    if workload.gpus is not None:
        count = -1 if workload.gpus == "all" else int(workload.gpus)
        host["DeviceRequests"] = [{"Count": count, "Capabilities": [["gpu"]]}]
    mounts = [
        {"Type": "volume", "Source": name, "Target": path, "ReadOnly": True}
        for name, path in workload.volumes.items()
    ]
    model = workload.env.get("MODEL_NAME")
    if workload.role is Role.SERVER and placement.cache_prefix is not None and model is not None:
        source = placement.cache_prefix + sha256(model.encode()).hexdigest()[:16]
        mounts.append({"Type": "volume", "Source": source, "Target": CACHE_PATH, "ReadOnly": False})
    if mounts:
        host["Mounts"] = mounts
    return host
