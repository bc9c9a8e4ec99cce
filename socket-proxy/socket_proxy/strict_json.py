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
    hooks: dict[str, Any] = {"object_pairs_hook": _refuse_repeated_keys, "parse_constant": _refuse_constant}
    try:
        value = json.loads(text.decode("utf-8"), **hooks)
        depth = _measure_depth(value)
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise Refused("the body is not valid JSON in UTF-8", 400) from error
    if not isinstance(value, dict) or depth > MAX_DEPTH:
        raise Refused(f"the body is not a JSON object of at most {MAX_DEPTH} levels", 400)
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        if key in members:
            raise Refused(f"the key {show(key)} stands twice in one object", 400)
        members[key] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(f"{name} is not JSON", 400)


def _measure_depth(value: object) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(map(_measure_depth, members), default=0)
