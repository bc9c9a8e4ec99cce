"""Files of held-out rows: what is read from them, and what is wrong with one that cannot be used."""

import hashlib
import json
from typing import Any

import pytest

from router.core.held_out import HeldOut, UnusableRows, read_csv, read_json

TABLE = {"target": "price", "columns": ["size", "price", "kind"], "data": [[1.5, 10, "a"], [None, 20, "b"]]}


def read_tables(held_out: HeldOut) -> list[dict[str, Any]]:
    return [json.loads(body)["dataframe_split"] for body, _ in held_out.bodies]


def test_the_target_is_divided_from_the_features() -> None:
    content = json.dumps(TABLE).encode()
    held_out = read_json(content, None, 100)
    assert read_tables(held_out) == [{"columns": ["size", "kind"], "data": [[1.5, "a"], [None, "b"]]}]
    assert held_out.truth == (10, 20)
    assert held_out.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_another_column_may_be_named_as_the_target() -> None:
    assert read_json(json.dumps(TABLE).encode(), "kind", 100).truth == ("a", "b")


def test_what_is_not_finite_is_sent_as_missing_however_deep_it_is() -> None:
    content = b'{"target": "y", "columns": ["x", "y"], "data": [[[NaN, [1e999]], 1], [-Infinity, 2]]}'
    ((body, rows),) = read_json(content, None, 100).bodies
    assert json.loads(body) == {"dataframe_split": {"columns": ["x"], "data": [[[None, [None]]], [None]]}}
    assert rows == 2


def test_a_value_is_either_sent_or_refused_however_deep_it_is_nested() -> None:
    refused = []
    for depth in range(900, 1000):
        value = b"[" * depth + b"]" * depth
        content = b'{"target": "y", "columns": ["x", "y"], "data": [[' + value + b", 1]]}"
        try:
            ((body, _),) = read_json(content, None, 100).bodies
            assert value in body
        except UnusableRows:
            refused.append(depth)
    assert refused == [depth for depth in range(900, 1000) if depth >= min(refused, default=1000)]


def test_rows_go_out_in_batches() -> None:
    table = {"target": "y", "columns": ["x", "y"], "data": [[n, n] for n in range(250)]}
    held_out = read_json(json.dumps(table).encode(), None, 1000)
    assert [rows for _, rows in held_out.bodies] == [100, 100, 50]
    assert read_tables(held_out)[2]["data"][0] == [200]


def test_of_too_many_rows_those_are_taken_that_are_spread_over_the_file() -> None:
    table = {"target": "y", "columns": ["x", "y"], "data": [[n, n] for n in range(1000)]}
    held_out = read_json(json.dumps(table).encode(), None, 4)
    assert held_out.truth == (0, 250, 500, 750)
    assert held_out.total == 1000


def test_a_columns_values_say_what_kind_it_is() -> None:
    text = "\ufeffwhole,part,yes,name,empty,y\r\n1,1.5,True,x,,3\r\n\r\n2,,false,7,,4\r\n"
    held_out = read_csv(text.encode(), "y", 100)
    (table,) = read_tables(held_out)
    assert table["columns"] == ["whole", "part", "yes", "name", "empty"]
    assert table["data"] == [[1, 1.5, True, "x", None], [2, None, False, "7", None]]
    assert held_out.truth == (3, 4)


def test_classes_that_only_look_like_numbers_stay_text() -> None:
    assert read_csv(b"x,y\n007,007\n012,012\n", "y", 100).truth == ("007", "012")
    assert read_csv(b"x,y\n007,7\n012,0\n", "y", 100).truth == (7, 0)


def test_a_column_that_the_signature_calls_text_stays_text() -> None:
    held_out = read_csv(b"postcode,y\n01067,1\n10115,2\n", "y", 100, frozenset({"postcode"}))
    assert read_tables(held_out)[0]["data"] == [["01067"], ["10115"]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"[1, 2]", "not JSON with"),
        (b"[" * 100_000, "not JSON"),
        (b'{"target": 3, "columns": [], "data": []}', "must be a name"),
        (b'{"target": "y", "columns": ["x", "y"], "data": []}', "no rows"),
        (b'{"target": "y", "columns": ["x", "x"], "data": [[1, 2]]}', "two columns have one name"),
        (b'{"target": "y", "columns": ["x", "y"], "data": [[1, 2], [3]]}', "row 2 does not have 2 values"),
        (b'{"target": "y", "columns": ["x", "y"], "data": [{"x": 1, "y": 2}]}', "row 1 does not have"),
        (b'{"target": "z", "columns": ["x", "y"], "data": [[1, 2]]}', "no column `z`"),
        (b'{"target": "y", "columns": ["y"], "data": [[1]]}', "no column beside its target"),
        (b'{"target": "y", "columns": ["x", "y"], "data": [[1, NaN]]}', "`y` is not a plain value"),
        (b'{"target": "y", "columns": ["x", "y"], "data": [[1, [2]]]}', "`y` is not a plain value"),
    ],
)
def test_json_that_cannot_be_used_is_told_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableRows, match=reason):
        read_json(content, None, 100)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no rows"),
        (b"x,y\n", "no rows"),
        (b"x,y\n1\n", "row 1 does not have 2 values"),
        (b'x,y\n"1,2\n', "not CSV"),
        (b"x,y\n\xff,2\n", "not CSV"),
        (b"x,y\n1,\n", "`y` is not a plain value"),
    ],
)
def test_a_csv_that_cannot_be_used_is_told_why(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableRows, match=reason):
        read_csv(content, "y", 100)
