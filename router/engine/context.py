"""What every part of the engine works with: the ports, the ledger, the policy, and one lock per endpoint."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from router.core.clock import Clock
from router.core.errors import NoRoomForCandidate, StorageFull
from router.core.ids import Ids
from router.core.images import RuntimeKind
from router.core.models import Server
from router.core.strategies import Strategy
from router.core.traffic import Upstream
from router.engine.ledger import Ledger
from router.engine.probing import Prober
from router.engine.spec_files import SpecFiles
from router.proxies.base import Proxy
from router.registries.base import Registry
from router.runtimes.base import Runtime
from router.stores.base import Store


@dataclass(frozen=True)
class Policy:
    """The settings that the engine acts on. Times in seconds."""

    mlflow_tracking_uri: str  # as trainers and servers are to call it
    public_url: str  # of the default endpoint, without a path
    runtime_kind: RuntimeKind = "process"
    production_alias: str = "deployed"
    trainer_image: str | None = None
    serve_image: str | None = None
    trainer_timeout: float = 3600.0
    health_timeout: float = 120.0
    drain_grace: float = 30.0
    warm_seconds: float = 3600.0
    stop_grace: float = 10.0
    sweep_seconds: float = 10.0
    log_tail_bytes: int = 16_384
    alias_poll_seconds: float = 0.0  # between looks for aliases that somebody has moved; 0: none
    default_model_name: str | None = None  # to serve at the start if nothing is serving
    default_model_version: int | str = "latest"
    canary_probability: float = 0.1  # share of a next model whose request does not say
    challenges: Path = Path("challenges")  # folder of the operator's held-out rows
    plan: Strategy = field(default_factory=Strategy)  # of a rollout when neither request nor spec has one

    def endpoint_url(self, endpoint: str) -> str:
        return self.public_url if endpoint == "default" else f"{self.public_url}/endpoints/{endpoint}"


@dataclass
class Context:
    runtime: Runtime
    proxy: Proxy
    registry: Registry
    store: Store
    specs: SpecFiles
    prober: Prober
    clock: Clock
    ids: Ids
    policy: Policy
    ledger: Ledger
    # Whoever reads traffic in order to change it holds the endpoint's lock from the reading to the writing.
    traffic_locks: defaultdict[str, anyio.Lock] = field(default_factory=lambda: defaultdict(anyio.Lock))
    # The rollout that has switched and the supervisor both see to the alias: one at a time.
    alias_locks: defaultdict[str, anyio.Lock] = field(default_factory=lambda: defaultdict(anyio.Lock))

    def trainer_env(self, env: Mapping[str, str], run_id: str) -> dict[str, str]:
        """Its own variables, and the trainer contract."""
        return {**env, "MLFLOW_TRACKING_URI": self.policy.mlflow_tracking_uri, "MLFLOW_RUN_ID": run_id}

    def server_env(self, server: Server) -> dict[str, str]:
        """The server contract, but for the port, which the runtime adds."""
        env = {
            "SERVE_MODEL_URI": f"models:/{server.model_name}/{server.version}",
            "MLFLOW_TRACKING_URI": self.policy.mlflow_tracking_uri,
            "MODEL_NAME": server.model_name,
            "MODEL_VERSION": str(server.version),
            "SERVER_ID": server.id,
        }
        return env | ({"MLFLOW_RUN_ID": server.run_id} if server.run_id else {})


def upstream_of(server: Server) -> Upstream:
    assert server.address is not None, "a server without an address has not been launched"
    return Upstream(
        address=server.address,
        server_id=server.id,
        model_name=server.model_name,
        model_version=server.version,
        serve_image=server.serve_image,
        serve_digest=server.serve_digest,
    )


@contextmanager
def giving_up_without_room() -> Iterator[None]:
    """A caller waits for the switch: he is told that there is no room, and not kept until there is."""
    try:
        yield
    except StorageFull as full:
        message = f"{full.message}; the candidate got no traffic and the active server was left as it was"
        raise NoRoomForCandidate(message, hint=full.hint) from full
