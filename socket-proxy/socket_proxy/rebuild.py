"""The body of `POST /containers/create`, rebuilt from an allow-list.

The models say which keys a client may send, in exactly this spelling, and which values; anything else is
refused. Nothing of the client's text is forwarded: `rebuild` writes a new body, key by key. What it does not
write, no container has: binds, devices, capabilities, published ports, the namespaces of the host.
"""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from socket_proxy.refusal import Refused, show
from socket_proxy.settings import Settings, read_size

OWNER_LABEL, ROLE_LABEL, INSTANCE_LABEL = "switchyard.owner", "switchyard.role", "switchyard.instance"
GPU_VARIABLE = "NVIDIA_VISIBLE_DEVICES"
CACHE_PATH = "/var/cache/switchyard"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}")

No = Literal[False]
Positive = Annotated[int, Field(ge=1)]
Size = Annotated[Positive, BeforeValidator(read_size)]
PlainText = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=4096)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*=[^\x00\r\n]*$")]
LabelName = Annotated[str, Field(pattern=r"^switchyard\.[a-z0-9_.-]{1,100}$")]
VolumeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,200}$")]
Folder = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+$", max_length=512)]


class Allowed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Mount(Allowed):
    Type: Literal["volume"]
    Source: VolumeName
    Target: Folder
    ReadOnly: bool


class GpuRequest(Allowed):
    Count: Literal[-1] | Positive  # -1: all
    Capabilities: list[list[Literal["gpu"]]] = Field(min_length=1, max_length=1)


class Rotation(Allowed):
    max_size: Size | None = Field(None, alias="max-size")
    max_file: Size | None = Field(None, alias="max-file")


class Log(Allowed):
    Type: Literal["json-file"] = "json-file"
    config: Rotation = Field(Rotation(), alias="Config")  # pydantic keeps the capital for itself


class Host(Allowed):
    NetworkMode: str | None = None
    Memory: Positive | None = None
    MemorySwap: Positive | None = None
    NanoCpus: Positive | None = None
    PidsLimit: Positive | None = None
    Mounts: list[Mount] = Field([], max_length=16)
    DeviceRequests: list[GpuRequest] = Field([], max_length=1)
    LogConfig: Log = Log()
    Init: Literal[True] = True


class Creation(Allowed):
    Image: str
    Env: list[Variable] = []
    Labels: dict[LabelName, PlainText]
    HostConfig: Host = Host()
    NetworkingConfig: dict[str, Any] = {}  # compared as a whole
    # Docker's SDK sends these with every container.
    Tty: No = False
    OpenStdin: No = False
    StdinOnce: No = False
    AttachStdin: No = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    NetworkDisabled: No = False


def read_creation(body: dict[str, Any]) -> Creation:
    try:
        return Creation.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(part if part.isalnum() else show(part) for part in map(str, found["loc"]))
        reason = "may not be set" if found["type"] == "extra_forbidden" else found["msg"]
        raise Refused(f"{place}: {reason}") from None  # the cause holds values


def rebuild(asked: Creation, name: str, image: str, settings: Settings) -> dict[str, Any]:
    """Raises Refused where a value is well-formed but beyond the settings."""
    if not _NAME.fullmatch(name) or not settings.name_pattern.fullmatch(name):
        raise Refused(f"name: must be a container's name, and match {settings.name_pattern.pattern}")
    labels = _rebuild_labels(asked.Labels, settings)
    network = settings.trainer_network if labels[ROLE_LABEL] == "trainer" else settings.server_network
    endpoints = {network: {"Aliases": [name]}}
    # Docker's SDK leaves a level out, which Docker then passes over.
    same: list[dict[str, Any]] = [{}, {network: None}, endpoints]
    if not any(asked.NetworkingConfig in (each, {"EndpointsConfig": each}) for each in same):
        raise Refused(f"NetworkingConfig: the network of this role is {network}, under the container's name")
    return {
        "Image": image,
        "Env": _rebuild_environment(asked.Env, settings),
        "Labels": labels,
        "HostConfig": _rebuild_host(asked.HostConfig, labels[ROLE_LABEL], network, settings),
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }


def _rebuild_environment(asked: list[str], settings: Settings) -> list[str]:
    """Where NVIDIA's runtime is Docker's default one, this variable is enough to be given GPUs."""
    if settings.allow_gpus:
        return asked
    if any(variable.startswith(f"{GPU_VARIABLE}=") for variable in asked):
        raise Refused(f"Env: {GPU_VARIABLE} asks for GPUs, which are not allowed here")
    return [*asked, f"{GPU_VARIABLE}=void"]  # whatever the image says


def _rebuild_labels(asked: dict[str, str], settings: Settings) -> dict[str, str]:
    if not asked.get(OWNER_LABEL):
        raise Refused(f"Labels: {OWNER_LABEL} is missing")
    if asked.get(ROLE_LABEL) not in ("trainer", "server"):
        raise Refused(f"Labels: {ROLE_LABEL} must be trainer or server")
    if asked.get(INSTANCE_LABEL, settings.instance) != settings.instance:
        raise Refused(f"Labels: {INSTANCE_LABEL} is another installation's")
    return {**asked, INSTANCE_LABEL: settings.instance}


def _rebuild_host(asked: Host, role: str, network: str, settings: Settings) -> dict[str, Any]:
    if asked.NetworkMode not in (None, network):
        raise Refused(f"HostConfig.NetworkMode: the network of this role is {network}")
    memory = _limit("Memory", asked.Memory, settings.max_memory)
    if asked.MemorySwap not in (None, memory):
        raise Refused("HostConfig.MemorySwap: must be as Memory, which is no swap")
    if asked.DeviceRequests and not settings.allow_gpus:
        raise Refused("HostConfig.DeviceRequests: GPUs are not allowed here")
    rotation = asked.LogConfig.config
    max_size = _limit("LogConfig", rotation.max_size, settings.log_max_size)
    max_file = _limit("LogConfig", rotation.max_file, settings.log_max_files)
    return {
        "NetworkMode": network,
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": _limit("NanoCpus", asked.NanoCpus, settings.max_cpus * 10**9),
        "PidsLimit": _limit("PidsLimit", asked.PidsLimit, settings.max_pids),
        "Mounts": [_rebuild_mount(mount, role, settings) for mount in asked.Mounts],
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,size={settings.tmp_size}"} if settings.read_only_root else {},
        "DeviceRequests": [{"Count": gpus.Count, "Capabilities": [["gpu"]]} for gpus in asked.DeviceRequests],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": str(max_size), "max-file": str(max_file)}},
        "ReadonlyRootfs": settings.read_only_root,
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Init": True,
    }


def _limit(name: str, asked: int | None, most: int) -> int:
    if asked is not None and asked > most:
        raise Refused(f"HostConfig.{name}: at most {most}")
    return asked or most


def _rebuild_mount(asked: Mount, role: str, settings: Settings) -> dict[str, Any]:
    if not asked.ReadOnly:
        return _rebuild_cache(asked, role, settings)
    forbidden = any(fnmatchcase(asked.Source, pattern) for pattern in settings.forbidden_volumes)
    if forbidden or not asked.Source.startswith(settings.volume_prefix):
        raise Refused(f"HostConfig.Mounts: the volume {show(asked.Source)} is not one for data")
    # NoCopy: else the image's files would be written into an empty volume.
    fixed = {"Type": "volume", "ReadOnly": True, "VolumeOptions": {"NoCopy": True}}
    return {**fixed, "Source": asked.Source, "Target": asked.Target}


def _rebuild_cache(asked: Mount, role: str, settings: Settings) -> dict[str, Any]:
    is_cache = re.fullmatch(re.escape(settings.cache_prefix) + "[0-9a-f]{16}", asked.Source)
    if role != "server" or asked.Target != CACHE_PATH or not is_cache:
        raise Refused("HostConfig.Mounts: nothing may be written to but a server's cache of models")
    # Copied from the image: the owner of the folder, who is not root. Labelled, so that it can be found.
    options = {"Labels": {INSTANCE_LABEL: settings.instance}}
    fixed = {"Type": "volume", "ReadOnly": False, "VolumeOptions": options}
    return {**fixed, "Source": asked.Source, "Target": asked.Target}
