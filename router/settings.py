"""Everything that the environment says to the router; no other module reads it.

The text below a setting is its documentation. A value that cannot be honoured is refused at the start, by
name. An empty variable counts as unset.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from router.core.errors import SwitchyardError
from router.core.versions import MODEL_NAME_PATTERN
from router.setting_kinds import (
    Alias,
    CaddyPath,
    Engine,
    FilePath,
    Folder,
    Host,
    Name,
    Network,
    Port,
    Ports,
    Socket,
    Token,
    Url,
    is_own_machine,
)


class InvalidSettings(SwitchyardError):
    """A setting of the router cannot be honoured."""

    code = "invalid_settings"


# What a trainer or server gets of the router's own environment: what any program needs to run, to be found,
# to reach the network, and to be let in by MLflow. The router's other secrets stay with it.
INHERITED = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("MLFLOW_TRACKING_INSECURE_TLS", "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
)
BUILD_PREFIXES = ("UV_", "PIP_")
# What means something in a container too: no paths of this machine.
PORTABLE = tuple(
    name
    for name in INHERITED
    if name in {"LANG", "LC_ALL", "LC_CTYPE", "TZ"}
    or name.lower().endswith("_proxy")
    or (name.startswith("MLFLOW_TRACKING_") and not name.endswith("_PATH"))
)
DEFAULT_SERVE_PORT = 8080

_LOOPBACK = re.compile(r"https?://(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/]|$)")


class Settings(BaseSettings):
    """Each field is read from the variable of its name in capitals."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        validate_default=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
    )

    # --- where the router listens -----------------------------------------------------------------
    router_host: Host = "127.0.0.1"
    """Address on which the router's own API listens. Another than this machine's own needs
    SWITCHYARD_TOKEN."""

    router_port: Port = 8000
    """Port of the router's own API."""

    router_bind: Host | None = None
    """Address of the host on which a container's router is published: set by the compose file, and judged
    instead of ROUTER_HOST, which is then an address inside."""

    switchyard_token: Token | None = Field(default=None, min_length=16)
    """Secret that every call of the router's API but the health checks' must bring, as
    `Authorization: Bearer TOKEN`. At least 16 characters."""

    # --- what it drives ---------------------------------------------------------------------------
    runtime: Literal["process", "docker"] = "process"
    """Where trainers and servers run. `process`: as child processes on this machine; `docker`: as
    containers."""

    proxy: Literal["caddy_slots", "caddy_admin"] = "caddy_slots"
    """How Caddy learns of a switch. `caddy_slots`: from the slot directories, without losing a request;
    `caddy_admin`: by its admin API, for a Caddy that shares no disk with the router, at the cost of a few."""

    # --- MLflow -----------------------------------------------------------------------------------
    mlflow_service_port: Port = 9010
    """Port of MLflow on this machine, also for people who open its pages."""

    mlflow_tracking_uri: Url = Field(
        default_factory=lambda data: f"http://127.0.0.1:{data['mlflow_service_port']}"
    )
    """MLflow's address for the router, trainers and servers. By default on MLFLOW_SERVICE_PORT of this
    machine."""

    production_alias: Alias = "deployed"
    """Alias in the registry that follows the version that the default endpoint serves. Another endpoint's is
    `PRODUCTION_ALIAS-NAME`, unless it was added with one of its own."""

    # --- files ------------------------------------------------------------------------------------
    project_root: Folder = Path()
    """Folder to which the `source` of a trainer spec, and the folders in its `image_options`, are relative.
    By default the working directory."""

    specs_path: FilePath = Path("specs")
    """Folder of trainer specs (`*.yaml`, `*.yml`, `*.json`), or one such file. Read again when it changes."""

    challenge_path: Folder = Path("challenges")
    """Folder of the files of held-out rows (`*.csv`, `*.json`) that `data` of a `challenge` may name."""

    state_path: Folder = Path(".switchyard/state")
    """Folder of everything that the router must find again after a restart. Back it up as a whole."""

    store_url: str = Field(
        default_factory=lambda data: f"sqlite:///{data['state_path'] / 'switchyard.db'}", repr=False
    )
    """Database of the router's records: `sqlite:///PATH` or `postgresql://...`. By default a file in
    STATE_PATH."""

    # --- Caddy ------------------------------------------------------------------------------------
    slots_path: CaddyPath = Field(default_factory=lambda data: data["state_path"] / "slots")
    """Slot directories, which say who gets the traffic. Caddy must see them under the same path. By default
    in STATE_PATH."""

    caddy_config_path: CaddyPath = Field(default_factory=lambda data: data["state_path"] / "caddy.json")
    """File that the router writes Caddy's whole configuration to, and that Caddy starts from. By default in
    STATE_PATH."""

    access_log_path: CaddyPath = Field(default_factory=lambda data: data["state_path"] / "access.log")
    """Caddy's access log, from which the router knows how servers answer. By default in STATE_PATH."""

    proxy_admin_url: Socket = Field(default_factory=lambda data: data["state_path"] / "caddy-admin.sock")
    """Unix socket of Caddy's admin API, as `unix//run/caddy/admin.sock` or as a path. Only Caddy and the
    router may reach it. By default in STATE_PATH."""

    proxy_public_port: Port = 9000
    """Port on which users reach the models."""

    proxy_listen_host: Host | None = None
    """Address on which Caddy listens on PROXY_PUBLIC_PORT. By default on all."""

    proxy_idle_port: Port = 9001
    """Port on 127.0.0.1 on which Caddy answers itself that no model is serving yet."""

    public_host: Host = "localhost"
    """Host name by which users reach PROXY_PUBLIC_PORT; it appears in `public_url`."""

    # --- trainers and servers ---------------------------------------------------------------------
    trainer_image: str | None = None
    """Image (under RUNTIME=process: source folder) of trainers whose spec names none."""

    serve_image: str | None = None
    """Image (under RUNTIME=process: source folder) of servers for models whose trainer's spec names none."""

    serve_port: Port | None = None
    """Port inside a serving container; 8080 if unset. Refused under RUNTIME=process, where PROCESS_PORTS
    takes its place."""

    process_ports: Ports = range(20000, 30000)
    """Ports for servers under RUNTIME=process, first and last: `20000-29999`."""

    trainer_timeout_sec: float = Field(default=3600, gt=0, le=366 * 86_400, allow_inf_nan=False)
    """Seconds after which a training is stopped, for specs without `timeout`."""

    health_timeout_sec: float = Field(default=120, ge=1, le=900, allow_inf_nan=False)
    """Seconds that a candidate has to answer its first prediction, for requests without
    `wait_ready_seconds`."""

    drain_grace_sec: float = Field(default=30, ge=0, le=3600, allow_inf_nan=False)
    """Seconds that a server which is to be stopped has to finish the requests inside it."""

    warm_seconds: float = Field(default=3600, ge=0, le=30 * 86_400, allow_inf_nan=False)
    """Seconds that the previous server is kept running after a rollout, so that a rollback is instant."""

    alias_poll_sec: float = Field(default=10, ge=0, le=86_400, allow_inf_nan=False)
    """Seconds between looks at the registry for an alias that somebody has moved, which starts a rollout of
    the version that it points to; 0 looks for none."""

    default_model_name: str | None = Field(default=None, pattern=MODEL_NAME_PATTERN)
    """Registered model that is rolled out at the start if nothing is serving."""

    default_model_version: str = Field(default="latest", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")
    """Its version: a number, an alias, or `latest`."""

    canary_probability: float = Field(default=0.1, ge=0, le=1, allow_inf_nan=False)
    """Share of the requests, 0 to 1, that `POST /update-model` gives to a next model if it does not say."""

    rollout_bake_sec: float = Field(default=60, ge=0, le=7 * 86_400, allow_inf_nan=False)
    """Seconds after a switch during which the new server is watched, and rolled back if it does worse than
    the one before; for rollouts without a strategy of their own."""

    # --- containers, under RUNTIME=docker ---------------------------------------------------------
    docker_host: Engine = "unix:///var/run/docker.sock"
    """Docker engine, or the socket proxy before it: `unix:///PATH` or `tcp://HOST:PORT`."""

    docker_instance: Name = "switchyard"
    """Label by which this router knows its own containers. Routers that share an engine need one each."""

    docker_trainer_network: Network = "switchyard-trainers"
    """Network of trainers, which must be there."""

    docker_server_network: Network = "switchyard-servers"
    """Network of servers, which must be there, and which Caddy and the router must be in."""

    docker_volume_prefix: Name = "switchyard-data-"
    """What the name of a volume must begin with for trainers to get it, read-only."""

    docker_cache_prefix: Name | None = None
    """What the names of the volumes begin with that servers of one model share as their cache of model
    files. Unset: each server fetches for itself."""

    docker_pids_limit: int = Field(default=1024, ge=16, le=4_194_304)
    """Processes and threads of one container whose spec does not say `resources.pids`."""

    docker_log_max_size: str = Field(default="10m", pattern=r"^[1-9]\d{0,5}[kmg]$")
    """Size at which a container's log is rotated."""

    docker_log_max_files: int = Field(default=3, ge=1, le=100)
    """Files that are kept of a container's log."""

    docker_gpus: bool = False
    """Whether the engine can give GPUs to containers; without it, specs that ask for them are refused."""

    docker_pull_sec: float = Field(default=600, gt=0, le=86_400, allow_inf_nan=False)
    """Seconds that pulling an image may take."""

    # --- logs -------------------------------------------------------------------------------------
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the router's own log lines."""

    log_format: Literal["console", "json"] = "console"
    """Log lines for people (`console`) or for a collector (`json`). Both go to standard error."""

    @classmethod
    def load(cls, overrides: Mapping[str, str] = MappingProxyType({})) -> Self:
        """From the environment, or before that from `overrides`, by the names of variables.

        Raises InvalidSettings with a line for each wrong variable.
        """
        fields = {name: overrides[name.upper()] for name in cls.model_fields if overrides.get(name.upper())}
        try:
            return cls(**fields)  # type: ignore[arg-type]  # text, which is read as the environment's is
        except ValidationError as error:
            raise InvalidSettings("\n".join(_describe(error)), hint="the router was not started") from error
        except SettingsError as error:
            raise InvalidSettings(str(error), hint="the router was not started") from error

    @model_validator(mode="after")
    def refuse_contradictions(self) -> Self:
        if self.runtime == "docker":
            if _LOOPBACK.match(self.mlflow_tracking_uri):
                raise ValueError(
                    "MLFLOW_TRACKING_URI: under RUNTIME=docker it must be an address for containers too;"
                    f" inside one, {self.mlflow_tracking_uri} is the container itself"
                )
        elif self.serve_port is not None:
            raise ValueError("SERVE_PORT: has no meaning under RUNTIME=process; set PROCESS_PORTS instead")
        published = self.router_bind or self.router_host
        if self.switchyard_token is None and not is_own_machine(published):
            raise ValueError(
                f"SWITCHYARD_TOKEN: must be set before the router may be reached at {published};"
                " or keep it on 127.0.0.1"
            )
        ports: dict[int, str] = {}
        for name in ("router_port", "proxy_public_port", "proxy_idle_port", "mlflow_service_port"):
            port = getattr(self, name)
            if port in ports:
                raise ValueError(f"{name.upper()}: the port {port} is that of {ports[port]} too")
            if self.runtime == "process" and port in self.process_ports:
                raise ValueError(f"PROCESS_PORTS: the range holds the port {port} of {name.upper()}")
            ports[port] = name.upper()
        return self

    @property
    def public_url(self) -> str:
        return f"http://{self.public_host}:{self.proxy_public_port}"

    @classmethod
    def variables(cls) -> list[str]:
        """Names of all that is read."""
        return [name.upper() for name in cls.model_fields]

    @staticmethod
    def child_environment() -> dict[str, str]:
        """What trainers and servers inherit of the router's environment."""
        return {name: os.environ[name] for name in INHERITED if name in os.environ}

    @staticmethod
    def container_environment() -> dict[str, str]:
        """The same for containers, which have files and paths of their own."""
        return {name: os.environ[name] for name in PORTABLE if name in os.environ}

    @classmethod
    def build_environment(cls) -> dict[str, str]:
        """What installing a source's packages needs: the same, and where packages come from."""
        index = {name: value for name, value in os.environ.items() if name.startswith(BUILD_PREFIXES)}
        return {**cls.child_environment(), **index}

    @staticmethod
    def spec_variables() -> dict[str, str]:
        """What `${VAR}` in trainer specs may stand for: the router's whole environment."""
        return dict(os.environ)


def _describe(error: ValidationError) -> list[str]:
    lines = []
    for found in error.errors(include_url=False, include_input=False, include_context=False):
        if found["type"] == "default_factory_not_called":
            continue  # follows from another variable's mistake, which has its own line
        name = str(found["loc"][0]).upper() if found["loc"] else ""
        message = found["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {message}" if name else message)
    return lines
