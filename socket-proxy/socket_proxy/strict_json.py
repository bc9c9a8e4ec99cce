"""JSON with one meaning only.

Docker's own decoder takes keys in any case and merges repeated ones, so two readers of one text can see two
different containers. Here a text that could be read in two ways is refused.
"""

import json
from typing import Any, NoReturn

from socket_proxy.refusal import Refused, show

MAX_DEPTH = 8


def parse_strictly(text: bytes) -> dict[str, Any]:
    """An object: UTF-8, no key twice at any depth, no NaN or infinity, at most MAX_DEPTH levels."""
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise Refused("the body is not valid JSON in UTF-8", 400) from error
    if not isinstance(value, dict):
        raise Refused("the body is not a JSON object", 400)
    _refuse_depth(value, MAX_DEPTH)
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise Refused(f"the key {show(repeated)} stands twice in one object", 400)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"{name} is not JSON", 400)


def _refuse_depth(value: object, left: int) -> None:
    if not left:
        raise Refused(f"the body is nested deeper than {MAX_DEPTH} levels", 400)
    if isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            if isinstance(member, dict | list):
                _refuse_depth(member, left - 1)
