"""Requests to /invocations in every format, right and wrong, for a model of the diabetes data."""

import json
from typing import Any

COLUMNS = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
ROW = [0.04, 0.05, 0.06, 0.02, -0.04, -0.03, -0.04, 0.0, 0.02, -0.02]
OTHER_ROW = [-0.01, -0.04, -0.05, -0.03, 0.01, 0.02, 0.07, -0.04, -0.07, -0.09]
RECORD = dict(zip(COLUMNS, ROW, strict=True))
SPLIT = {"columns": COLUMNS, "data": [ROW, OTHER_ROW]}
CSV = "\n".join([",".join(COLUMNS), *(",".join(map(str, row)) for row in (ROW, OTHER_ROW))])
NOT_A_NUMBER = float("nan")


def changed(**values: Any) -> dict[str, Any]:
    return {"dataframe_records": [{**RECORD, **values}]}


# name -> body of an application/json request, answered with predictions
ACCEPTED: dict[str, Any] = {
    "split": {"dataframe_split": SPLIT},
    "split with an index": {"dataframe_split": {**SPLIT, "index": [7, 8]}},
    "split in another order": {"dataframe_split": {"columns": COLUMNS[::-1], "data": [ROW[::-1]]}},
    "split with a column too many": {
        "dataframe_split": {"columns": [*COLUMNS, "shoe"], "data": [[*ROW, 43]]}
    },
    "records": {"dataframe_records": [RECORD, dict(zip(COLUMNS, OTHER_ROW, strict=True))]},
    "instances by name": {"instances": [RECORD]},
    "inputs by column": {"inputs": {name: [value, value] for name, value in RECORD.items()}},
    "inputs of one row": {"inputs": RECORD},
    "inputs of records": {"inputs": [RECORD]},
    "no parameters": {"dataframe_split": SPLIT, "params": {}},
    "null parameters": {"dataframe_split": SPLIT, "params": None},
    "parameters the model does not have": {"dataframe_split": SPLIT, "params": {"depth": 3}},
    "integers": changed(age=1, sex=0),
    "an integer that no float has": changed(age=2**53 + 1),
    "very many rows": {"dataframe_split": {"columns": COLUMNS, "data": [ROW, OTHER_ROW] * 5000}},
    "a huge integer": changed(age=2**70),
    "a boolean": changed(sex=True),
    "a missing value": changed(age=None),
    "not a number": changed(age=NOT_A_NUMBER),
}

# name -> body of an application/json request that must be refused with 400
REFUSED: dict[str, Any] = {
    "infinity": changed(age=float("inf")),
    "text for a number": changed(age="old"),
    "a list for a number": changed(age=[1]),
    "a number too large": changed(age=10**400),
    "a missing column": {"dataframe_split": {"columns": COLUMNS[1:], "data": [ROW[1:]]}},
    "a renamed column": {"dataframe_split": {"columns": ["girth", *COLUMNS[1:]], "data": [ROW]}},
    "a short row": {"dataframe_split": {"columns": COLUMNS, "data": [[1]]}},
    "no rows": {"dataframe_split": {"columns": COLUMNS, "data": []}},
    "a column twice": {"dataframe_split": {"columns": ["age", "age"], "data": [[1, 2]]}},
    "split of an unknown kind": {"dataframe_split": {**SPLIT, "rows": 2}},
    "split of nothing": {"dataframe_split": {}},
    "split as a number": {"dataframe_split": 5},
    "split as null": {"dataframe_split": None},
    "records as an object": {"dataframe_records": {"a": 1}},
    "records of numbers": {"dataframe_records": [5]},
    "no records": {"dataframe_records": []},
    "instances without names": {"instances": [ROW]},
    "instances of text": {"instances": ["a"]},
    "ragged instances": {"instances": [[1], [1, 2]]},
    "no instances": {"instances": []},
    "inputs without names": {"inputs": [ROW]},
    "inputs as text": {"inputs": "a"},
    "inputs of lists of lists": {"inputs": {name: [[value]] for name, value in RECORD.items()}},
    "two formats at once": {"inputs": RECORD, "instances": [RECORD]},
    "no format": {},
    "an unknown format": {"rows": [ROW]},
    "a chat": {"messages": [{"role": "user", "content": "hello"}]},
    "a list": [RECORD],
    "a number itself": 5,
}

# name -> (Content-Type, body), whatever the answer
OTHERS: dict[str, tuple[str, bytes]] = {
    "CSV": ("text/csv", CSV.encode()),
    "CSV in UTF-8": ("text/csv; charset=utf-8", CSV.encode()),
    "CSV with missing values": ("text/csv", f"{','.join(COLUMNS)}\n{',' * 9}".encode()),
    "CSV with text": ("text/csv", CSV.replace("0.04", "old").encode()),
    "CSV of other columns": ("text/csv", b"a,b\n1,2"),
    "CSV with an open quote": ("text/csv", b'"'),
    "CSV of a NUL": ("text/csv", b"\0"),
    "CSV that is not UTF-8": ("text/csv", b"\xff"),
    "empty CSV": ("text/csv", b""),
    "JSON in UTF-8": ("application/json; charset=utf-8", json.dumps({"inputs": RECORD}).encode()),
    "JSON in another encoding": ("application/json; charset=latin1", b"{}"),
    "JSON with a parameter": ("application/json; format=pandas", b"{}"),
    "JSON that ends early": ("application/json", b'{"inputs": {"age"'),
    "JSON that is not UTF-8": ("application/json", b"\xff\xfe"),
    "a value that is not UTF-8": ("application/json", b'{"dataframe_records": [{"age": "\xff"}]}'),
    "a key that is not UTF-8": ("application/json", b'{"dataframe_records": [{"\xff": 1}]}'),
    "a format that is not UTF-8": ("application/json", b'{"\xff": 1}'),
    "no JSON": ("application/json", b""),
    "plain text": ("text/plain", b"{}"),
    "an empty type": ("", b"{}"),
    "a type without a subtype": ("json", b"{}"),
}

# name -> body of an application/json request that must be refused with 400, where MLflow's own server answers
# 500, or (the last) in words that depend on whether pyarrow is installed
REFUSED_OTHERWISE: dict[str, bytes] = {
    "nested too deep": b"[" * 100_000,
    "instances nested too deep": b'{"instances":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a number of very many digits": b'{"inputs": %s}' % (b"9" * 5000),
    "a column named by an object": b'{"dataframe_split": {"columns": [{}], "data": [[1]]}}',
    "a column named by half a character": b'{"inputs": {"\\ud800": [1]}}',
}
