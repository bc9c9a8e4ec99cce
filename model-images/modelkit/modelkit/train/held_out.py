"""The rows that a model has not learned from, kept with it: later models are judged against it on these.

The router reads them from the version that serves (its `challenge` gate), as `evaluation/held_out.json`.
"""

import json
from pathlib import PurePosixPath

import pandas as pd

from modelkit.train.datasets import Split

HELD_OUT_FILE = PurePosixPath("evaluation/held_out.json")
MAX_BYTES = 2**20  # every server downloads them with the model


def write_held_out(split: Split, most: int) -> str | None:
    """As JSON in pandas' split orient, with the target's name; None if that is no row."""
    rows = split.test.head(most)  # in no order, as they were divided
    while len(rows):
        text = _write(rows, split.target)
        size = len(text.encode())
        if size <= MAX_BYTES:
            return text
        rows = rows.head(min(len(rows) - 1, len(rows) * MAX_BYTES // size))
    return None


def _write(rows: pd.DataFrame, target: str) -> str:
    plain = rows.astype(object).where(rows.notna(), None)  # JSON has no NaN
    columns = [str(column) for column in plain.columns]
    table = {"target": target, "columns": columns, "data": plain.to_numpy().tolist()}
    return json.dumps(table, default=str)
