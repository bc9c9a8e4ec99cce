"""Identifiers as a dependency, so that tests can name what will be made."""

import secrets
from typing import Protocol


class Ids(Protocol):
    def new(self, prefix: str) -> str: ...


class RandomIds:
    """`trn_3f9a...`: what it names, then 64 random bits."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(8)}"
