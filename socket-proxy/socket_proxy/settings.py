"""Everything that the environment says to the proxy: `SOCKET_PROXY_` and a field's name in capitals.

An empty variable counts as unset; an unknown one ends the start. The text below a field is its documentation.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

PREFIX = "SOCKET_PROXY_"
SIZE_STEPS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def split_list(value: object) -> object:
    return tuple(part for part in re.split(r"[,\s]+", value) if part) if isinstance(value, str) else value


def read_size(value: object) -> object:
    match = re.fullmatch(r"(\d+)([kmg]?)b?", value.lower()) if isinstance(value, str) else None
    return int(match[1]) * SIZE_STEPS[match[2]] if match else value


def measure_memory() -> int:
    """Three quarters of the machine's, in bytes: the rest is for the router, MLflow and the kernel."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def check_network(value: str) -> str:
    if value in ("host", "none", "default", "bridge", "container", "ingress"):
        raise ValueError("must be a network of its own: to Docker this word means something else")
    return value


Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")]
NetworkName = Annotated[Name, AfterValidator(check_network)]
ImagePattern = Annotated[
    str, Field(pattern=r"^[a-z0-9*][a-z0-9._*/-]*(:[0-9]+/[a-z0-9._*/-]+)?(:[\w.*-]+)?$")
]
ImagePatterns = Annotated[tuple[ImagePattern, ...], BeforeValidator(split_list)]
Size = Annotated[int, BeforeValidator(read_size), Field(ge=1024)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on; in the image `0.0.0.0`."""
    port: int = Field(2375, ge=1, le=65535)
    """Port to listen on."""
    docker_socket: str = "/var/run/docker.sock"
    """Docker's socket."""
    # Longer than the health check needs to call a new container unhealthy: a wrong mount fails `make up`.
    give_up_seconds: int = Field(30, ge=0)
    """Seconds without any connection to Docker's socket after which the process ends, since a restarted
    container mounts the socket anew. 0: at the first one that fails."""
    instance: Name = "switchyard"
    """Which installation this is; the label that tells its containers from all others."""
    images: ImagePatterns = ()
    """Images that may be run and inspected, as `NAME` (any tag or digest) or `NAME:TAG` (what this tag names
    on this host, by its digest too); `*` stands for anything but `/` and `:`. None by default."""
    pulls: ImagePatterns = ()
    """Those of them that may be pulled, by their digest only as `NAME`. A name without a registry is Docker
    Hub's, where anybody may have taken it. None by default."""
    name_pattern: re.Pattern[str] = re.compile(r".+-[0-9a-f]{8}")
    """Regular expression for the whole name of a container. By default it must end as the router's names do,
    so that none takes the name of a service."""
    trainer_network: NetworkName = "switchyard-trainers"
    """Network of containers with the role `trainer`."""
    server_network: NetworkName = "switchyard-servers"
    """Network of containers with the role `server`."""
    volume_prefix: Name = "switchyard-data-"
    """What the name of a volume must begin with to be mounted, always read-only."""
    cache_prefix: Name = "switchyard-cache-"
    """What the name of a server's cache of models begins with; 16 hexadecimal digits follow. It is mounted at
    `/var/cache/switchyard`, to be written to, as no other volume is."""
    forbidden_volumes: Annotated[tuple[str, ...], BeforeValidator(split_list)] = (
        *("*state*", "*slots*", "*admin*", "*caddy*", "*mlflow*"),
    )
    """Volumes that are never mounted, whatever the prefix; `*` stands for anything."""
    allow_gpus: bool = False
    """Whether containers may ask for GPUs."""
    read_only_root: bool = False
    """Whether every container's root filesystem is read-only."""
    max_memory: Size = Field(default_factory=measure_memory)
    """Memory of a container, at most and if it asks for none; `512m`, `2g`. By default three quarters of the
    machine's."""
    max_cpus: Count = Field(default_factory=lambda: os.cpu_count() or 1)
    """CPUs of a container, at most and if it asks for none. By default all."""
    max_pids: Count = 1024
    """Processes and threads of a container, at most and if it asks for none."""
    tmp_size: Size = 64 * 1024**2
    """Size of `/tmp` in memory, beside a read-only root."""
    log_max_size: Size = 10 * 1024**2
    """Size at which a container's log is rotated."""
    log_max_files: Count = 3
    """Files that are kept of a container's log."""

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Self:
        given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
        return cls.model_validate({name.removeprefix(PREFIX).lower(): given[name] for name in given})
