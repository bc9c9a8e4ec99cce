"""JSON that can be read in two ways is refused; all other JSON is read as usual."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_proxy.refusal import Refused
from socket_proxy.strict_json import MAX_DEPTH, parse_strictly

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def depth(value: Any) -> int:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if members is None else 1 + max(map(depth, members), default=0)


@given(st.dictionaries(st.text(), VALUES))
def test_what_has_one_meaning_is_read(value: dict[str, Any]) -> None:
    if depth(value) <= MAX_DEPTH:
        assert parse_strictly(json.dumps(value).encode()) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(Refused):
        assert isinstance(parse_strictly(text), dict)


@given(st.text(), st.integers(0, MAX_DEPTH - 1))
def test_a_key_is_refused_twice_at_any_depth_however_it_is_written(key: str, depth: int) -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in key if ord(letter) < 0x10000)
    if len(escaped) == 6 * len(key):
        text = f'{{{json.dumps(key)}: 1, "{escaped}": 2}}'
        for _ in range(depth):
            text = f'{{"in": {text}}}'
        with pytest.raises(Refused, match="twice"):
            parse_strictly(text.encode())


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 1000, 30_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'], ids=["lists", "objects"])
def test_depth_is_bounded(levels: int, brackets: str) -> None:
    text = '{"a":' + brackets[:-1] * (levels - 1) + "1" + brackets[-1] * (levels - 1) + "}"
    with pytest.raises(Refused):
        parse_strictly(text.encode())
