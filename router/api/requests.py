"""What callers may send: strict, so that a misspelt field is told and not ignored."""

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Self

from fastapi import Depends, Header, Path, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError
from starlette.convertors import Convertor, register_url_convertor

from router.core.gates import GatePlan
from router.core.strategies import Strategy
from router.core.traffic import DEFAULT_ENDPOINT, NAME_PATTERN, Weight, check_alias
from router.core.versions import MAX_VERSION, MODEL_NAME_PATTERN
from router.engine.commands import Caller
from router.engine.engine import Engine

ALIAS_PATTERN = r"^@[A-Za-z0-9][A-Za-z0-9_.-]{0,254}$"
REFERENCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_./:@-]{0,1023}$"
MAX_NAMES = 1000  # of endpoints in one call
WHY = "kept in the history"
RECORD_ID_PATTERN = r"^[a-z]{3}_[0-9a-z]{1,32}$"

TrainerName = Annotated[
    str,
    Path(pattern=NAME_PATTERN, description="name of the entry in `specs/`", examples=["sklearn-model-1"]),
]
RecordId = Annotated[str, Path(pattern=RECORD_ID_PATTERN, examples=["rol_fb1cc0843149ef2c"])]
EndpointName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
EndpointPath = Annotated[str, Path(pattern=NAME_PATTERN, examples=["fraud"])]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
AliasName = Annotated[str, AfterValidator(check_alias)]
Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]


def read_version_or_alias(value: object) -> object:
    """One check for both, so that what is wrong is told of `ref` and not of each thing it might have been."""
    if type(value) is int and 1 <= value <= MAX_VERSION:
        return value
    if isinstance(value, str) and re.fullmatch(ALIAS_PATTERN, value):
        return value
    raise PydanticCustomError(
        "ref", "must be a version, such as 3 without quotes, or an alias, such as `@champion`"
    )


VersionOrAlias = Annotated[
    int | str,
    BeforeValidator(read_version_or_alias),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_VERSION},
                {"type": "string", "pattern": ALIAS_PATTERN},
            ]
        }
    ),
]
MARGIN_SECONDS = 15.0  # for what comes before and after the candidate's own time
WaitSeconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False, strict=True)]
ReadySeconds = Annotated[float, Field(ge=1, le=900, allow_inf_nan=False, strict=True)]


class AnyText(Convertor[str]):
    """Takes slashes and newlines too, so that a wrong name is told as one, and not as an unknown page."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", AnyText())


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Plan = Annotated[Strategy, Field(description="how users are moved to it; in place of the spec's `rollout`")]
Gates = Annotated[
    GatePlan, Field(description="what it must pass before it gets traffic; in place of the spec's `gates`")
]


class Gated(Body):
    rollout: Plan | None = None
    gates: Gates | None = None
    force: bool = Field(
        default=False, strict=True, description="go on whatever the gates say; needs a `reason`"
    )
    reason: Reason | None = Field(default=None, description=WHY)

    @model_validator(mode="after")
    def refuse_force_without_reason(self) -> Self:
        if self.force and self.reason is None:
            raise ValueError("`force` needs a `reason`")
        return self


class TrainBody(Body):
    wait_seconds: WaitSeconds | None = Field(
        default=None, description="how long to wait for the end; 0: not at all; omitted: as long as it takes"
    )
    image_key: str | None = Field(default=None, max_length=255)
    parameters: dict[str, str | int | float | bool | None] | None = Field(
        default=None, description="environment variables laid over the spec's; null unsets one"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"wait_seconds": 600, "parameters": {"N_ESTIMATORS": 200, "MAX_DEPTH": 8}}]
        }
    )


class TrainThenRollBody(TrainBody, Gated):
    endpoint: EndpointName | None = Field(
        default=None, description="where the version goes; omitted: where the spec says, else `default`"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"wait_seconds": 600, "reason": "trained on November"}]}
    )


class SteerBody(Body):
    reason: Reason | None = Field(default=None, description=WHY)

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"reason": "wrong on weekends"}]})


class WeightBody(SteerBody):
    weight: Weight = Field(strict=True, description="percent of the requests")

    model_config = ConfigDict(json_schema_extra={"examples": [{"weight": 30}]})


class RollBody(Gated):
    name: ModelName
    ref: VersionOrAlias = Field(description="a version, or `@alias`")
    wait_ready_seconds: ReadySeconds | None = None
    serve_image: Reference | None = None
    wait_seconds: WaitSeconds | None = Field(default=None, description="how long to wait for the switch")
    endpoint: EndpointName = DEFAULT_ENDPOINT

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "DiabetesRF", "ref": 1},
                {
                    "name": "DiabetesRF",
                    "ref": "@champion",
                    "rollout": {"strategy": "canary", "steps": [5, 25, 100], "hold": 120},
                },
            ]
        }
    )


class RollbackBody(Body):
    wait_ready_seconds: ReadySeconds | None = None
    serve_image: Reference | None = None
    wait_seconds: WaitSeconds | None = None
    endpoint: EndpointName = DEFAULT_ENDPOINT
    reason: Reason | None = Field(default=None, description=WHY)

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"reason": "wrong on weekends"}]})


class EndpointsBody(Body):
    name: EndpointName | None = Field(default=None, description="one endpoint; or several in `names`")
    names: list[EndpointName] | None = Field(default=None, min_length=1, max_length=MAX_NAMES)
    alias: AliasName | None = Field(
        default=None, description="in the registry, for a single one; omitted: `PRODUCTION_ALIAS-NAME`"
    )
    reason: Reason | None = Field(default=None, description=WHY)

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "fraud"}, {"names": ["fraud", "churn", "returns"]}]}
    )

    @model_validator(mode="after")
    def check_names(self) -> Self:
        if (self.name is None) == (self.names is None):
            raise PydanticCustomError("names", "give either `name` or `names`")
        if len(set(self.wanted)) < len(self.wanted):
            raise PydanticCustomError("names", "`names` has one of them twice")
        if self.alias is not None and len(self.wanted) > 1:
            raise PydanticCustomError("alias", "no two endpoints share an alias: add this one alone")
        return self

    @property
    def wanted(self) -> list[str]:
        return self.names if self.names is not None else [str(self.name)]


async def engine_of(request: Request) -> Engine:
    """Async, since FastAPI would call it in a thread otherwise."""
    engine: Engine = request.app.state.engine
    return engine


EngineDep = Annotated[Engine, Depends(engine_of)]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,255}$", description="makes a repeat harmless"),
]


async def once(
    engine: Engine, caller: Caller, patience: float | None, start: Callable[[], Awaitable[str]]
) -> tuple[str, float | None]:
    """The id of what was started, and how long to wait for it: a repeat is told at once how things stand."""
    earlier = await engine.commands.recall(caller)
    return (earlier, 0.0) if earlier is not None else (await start(), patience)


def read_caller(request: Request, key: str | None, body: BaseModel) -> Caller:
    """Two requests are the same if method, path and the meaning of their bodies are."""
    # In ASCII: half a character, which JSON can say, is refused where it stands and not here.
    asked = f"{request.method} {request.url.path} {json.dumps(body.model_dump(), sort_keys=True)}"
    name = request.client.host if request.client else None
    return Caller(name=name, key=key, fingerprint=hashlib.sha256(asked.encode()).hexdigest())
