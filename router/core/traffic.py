"""What the proxy does for an endpoint now, and how a share of traffic becomes a `cut`.

The share is a comparison of text: a request goes to the candidate when its uuid, in hexadecimal, sorts
before the cut. Four digits give steps of 1/65536; `g` sorts after every digit, so it means all. Of a sticky
cut, the uuid of a client's first request counts for the later ones too: a cookie carries it.
"""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
DEFAULT_ENDPOINT = "default"
HEX_STEPS = 0x10000
ALL = "g"  # a cut that every number sorts before
STICKY = "-sticky"  # at the end of a cut; a hyphen sorts before every digit, so the share is the same

_ALIAS = re.compile(r"(?!(?:v\d+|latest)\Z)[A-Za-z0-9_-]{1,255}", re.IGNORECASE)

Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Upstream(BaseModel):
    """One server as the proxy and the slot directory know it: enough to bring it back without the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str  # host:port
    server_id: str
    model_name: str
    model_version: int
    serve_image: str
    serve_digest: str


class Traffic(BaseModel):
    """`candidate` takes `weight` percent of the requests; without one, `active` takes them all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active: Upstream | None = None
    candidate: Upstream | None = None
    weight: Weight = 0
    sticky: bool = False  # a client stays with the side that it met first, by a cookie

    def names(self, server_id: str) -> bool:
        return any(upstream.server_id == server_id for upstream in (self.active, self.candidate) if upstream)


def cut_for(weight: float, sticky: bool = False) -> str:
    """Percent (0..100) to the text that a request's uuid is compared with."""
    steps = round(weight / 100 * HEX_STEPS)
    digits = ALL if steps >= HEX_STEPS else f"{steps:04x}"
    return digits + STICKY if sticky else digits


def check_alias(value: str) -> str:
    """The name under which the registry shows what an endpoint serves."""
    if not _ALIAS.fullmatch(value):
        raise ValueError(
            "must be an alias that MLflow takes: letters, digits, `_` and `-`, not `latest` or `v1`"
        )
    return value
