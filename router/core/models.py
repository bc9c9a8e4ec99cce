"""The records that the router keeps: trainings, rollouts, servers, endpoints, and the events between them.

Every record is frozen; a change is a new value, written only if the stored one is still the value that the
change was made from (`revision`).
"""

import math
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from router.core.errors import SwitchyardError
from router.core.gates import GatePlan, GateResult
from router.core.specs import Resources
from router.core.strategies import Strategy
from router.core.traffic import DEFAULT_ENDPOINT, Upstream, Weight
from router.core.verdicts import Judgement


class TrainingPhase(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    REGISTERING = "registering"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in {self.SUCCEEDED, self.FAILED, self.TIMED_OUT, self.CANCELLED}


class RolloutPhase(StrEnum):
    PENDING = "pending"
    LAUNCHING = "launching"
    PROBING = "probing"
    GATING = "gating"
    SHIFTING = "shifting"
    PROMOTING = "promoting"
    BAKING = "baking"
    ABORTING = "aborting"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        return self in {self.SUCCEEDED, self.ROLLED_BACK, self.FAILED}

    @property
    def switched(self) -> bool:
        """Whether users get the candidate: the caller's answer waits for this, not for what follows."""
        return self in {self.PROMOTING, self.BAKING, self.SUCCEEDED}

    @property
    def settled(self) -> bool:
        """Whether it is known what users get of it."""
        return self.switched or self.terminal


class ServerPhase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"
    WARM = "warm"
    DRAINING = "draining"
    STOPPED = "stopped"

    @property
    def terminal(self) -> bool:
        return self is self.STOPPED


class EndpointPhase(StrEnum):
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"

    @property
    def terminal(self) -> bool:
        return self is self.CLOSED


Phase = TrainingPhase | RolloutPhase | ServerPhase | EndpointPhase
Slot = Literal["blue", "green"]


def tell_number(value: float | None) -> float | str | None:
    """As JSON can say it, which has no word for NaN and infinity."""
    return value if value is None or math.isfinite(value) else str(value)


class Failure(BaseModel):
    """Why something ended badly, in the words of the error that ended it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    message: str
    hint: str | None = None
    status: int = 500  # the HTTP status that a caller who waits for it gets

    @classmethod
    def of(cls, error: SwitchyardError) -> Self:
        return cls(code=error.code, message=error.message, hint=error.hint, status=error.status)


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    revision: int = 0
    created_at: float  # epoch seconds, as all times here
    updated_at: float
    entered: dict[str, float] = Field(default_factory=dict)  # phase -> when it was entered last
    waiting_on: str | None = None  # what is not there now and is tried again, in words

    def evolve(self, now: float, **changes: Any) -> Self:
        """The next value of this record: changed fields, one revision up, the phase's time noted."""
        fields = {**changes, "revision": self.revision + 1, "updated_at": now}
        phase = changes.get("phase")
        if phase is not None and phase != getattr(self, "phase", None):
            fields["entered"] = {**self.entered, str(phase): now}
        return self.model_copy(update=fields)


class RollIntent(BaseModel):
    """What `train_then_roll` has promised to do with the version that a training will make."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollout_id: str
    endpoint: str = DEFAULT_ENDPOINT
    wait_ready_seconds: float
    plan: Strategy = Strategy()
    gate_plan: GatePlan = GatePlan()
    forced: bool = False


class Training(Record):
    phase: TrainingPhase = TrainingPhase.QUEUED
    trainer: str
    container: str  # name of the trainer's container or process
    image: str
    image_digest: str | None = None
    image_key: str | None = None
    serve_image: str
    env: dict[str, str]  # merged: spec, then parameters
    parameters: dict[str, str | None]  # as applied; None: unset
    resources: Resources = Resources()
    gpus: str | None = None
    volumes: dict[str, str] = Field(default_factory=dict)  # name -> folder inside, read-only
    timeout_seconds: float
    experiment: str
    model_name: str | None = None  # the name that the version must appear under, if the spec says
    run_id: str | None = None
    deadline: float | None = None
    exit_code: int | None = None
    out_of_memory: bool | None = None
    cancel_requested: bool = False
    outcome: TrainingPhase | None = None  # decided end, while the run is being closed in the registry
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    registered_model: str | None = None
    version: int | None = None
    metrics: dict[str, float] | None = None
    run_parameters: dict[str, str] | None = None
    logs_tail: str | None = None
    roll: RollIntent | None = None
    requested_by: str | None = None
    reason: str | None = None  # as whoever asked for it gave it

    @property
    def told_metrics(self) -> dict[str, float | str | None] | None:
        found = self.metrics
        return None if found is None else {name: tell_number(value) for name, value in found.items()}

    @property
    def model_uri(self) -> str | None:
        return f"models:/{self.registered_model}/{self.version}" if self.version is not None else None


class StepRecord(BaseModel):
    """One weight that a rollout stood at, and what was found there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: Weight
    since: float
    until: float | None = None
    finding: Judgement | None = None


class Rollout(Record):
    phase: RolloutPhase = RolloutPhase.PENDING
    endpoint: str = DEFAULT_ENDPOINT
    kind: Literal["roll", "rollback"] = "roll"
    model_name: str
    version: int
    run_id: str | None = None
    ref: str  # as the caller gave it: a number or an @alias
    serve_image: str
    serve_digest: str | None = None
    server_id: str | None = None  # the candidate
    previous_server_id: str | None = None  # what served when this rollout switched
    training_id: str | None = None
    replaces: str | None = None  # the active server, stopped for want of memory by this or the one aside
    stop_seconds: float | None = None  # what stopping it took
    preempts: str | None = None  # the rollout that this rollback has pushed aside
    preempted: bool = False  # no longer holds its endpoint: it only cleans up after itself
    abort_requested: bool = False
    gate_plan: GatePlan = GatePlan()
    gates: tuple[GateResult, ...] = ()
    forced: bool = False  # goes on whatever the gates say
    plan: Strategy = Strategy()
    step: int = -1  # index into the plan's shares; -1: before the first
    steps: tuple[StepRecord, ...] = ()  # the last one is where it stands
    paused: str | None = None  # why it waits for a person
    accepted_step: int | None = None  # where a person said to go on although little was known
    promote_requested: bool = False
    promoted_by: str | None = None  # who asked for that
    bake_until: float | None = None
    bake_limit: float | None = None  # until when it goes on if there is too little traffic to judge it by
    ready_deadline: float  # by when the candidate must have proved itself
    outcome: RolloutPhase | None = None  # decided end, while the candidate is being put away
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    evidence: dict[str, Any] = Field(default_factory=dict)
    logs_tail: str | None = None
    requested_by: str | None = None
    reason: str | None = None  # as whoever asked for it gave it

    @property
    def model_uri(self) -> str:
        return f"models:/{self.model_name}/{self.version}"

    @property
    def weight(self) -> float | None:
        """What share of the traffic the candidate is to have before the switch; None: it is not named yet."""
        return self.steps[-1].weight if self.steps else None

    def is_served_by(self, active: Upstream) -> bool:
        """Whether it is this version from this image, whichever server it is."""
        served = (active.model_name, active.model_version, active.serve_digest)
        return served == (self.model_name, self.version, self.serve_digest)

    @property
    def holds_endpoint(self) -> bool:
        """At most one rollout per endpoint holds it; the store refuses a second one."""
        return not self.phase.terminal and not self.preempted


class Server(Record):
    phase: ServerPhase = ServerPhase.STARTING
    endpoint: str = DEFAULT_ENDPOINT
    slot: Slot
    name: str  # unique for ever: it is the host name under Docker
    model_name: str
    version: int
    run_id: str | None = None
    serve_image: str
    serve_digest: str
    rollout_id: str | None = None  # None: launched by the supervisor in place of a dead one
    replaces: str | None = None
    address: str | None = None  # host:port, once launched
    exit_code: int | None = None
    out_of_memory: bool | None = None
    warm_until: float | None = None
    drain_deadline: float | None = None
    probe_body: str | None = (
        None  # the prediction that proved it, to prove a replacement without the registry
    )
    logs_tail: str | None = None  # of a server that ended by itself
    reason: str | None = None  # why it is on its way out


class Endpoint(Record):
    """`id` is the name. The last alias value that we wrote tells somebody's request from a disagreement."""

    phase: EndpointPhase = EndpointPhase.OPEN
    alias: str | None = None  # None: PRODUCTION_ALIAS, which is the default endpoint's
    requested_by: str | None = None  # of the last time that it was added or removed
    reason: str | None = None
    alias_model: str | None = None
    alias_version: int | None = None
    alias_asked: int | None = None  # version that somebody moved it to, and the rollout that this asked for
    alias_rollout: str | None = None
    alias_carriers: tuple[str, ...] = ()  # while it is being moved: every model that may carry it,
    alias_writes: tuple[int, ...] = ()  # and every version that we may have moved it to


class Event(BaseModel):
    """One line of history, written in the transaction of the change that it tells of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    subject: str  # record id
    kind: str  # e.g. "phase", "switched", "alias", "warning"
    text: str
    data: dict[str, Any] = Field(default_factory=dict)
