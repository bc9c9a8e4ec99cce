"""The calls that clients of earlier services make, each turned into /invocations and its answer turned back.

A refusal passes as it is: MLflow's status and error shape.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from modelkit.manifest import Label
from modelkit.serve.answers import About

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class BadCall(Exception):
    """The body is not what this call takes; the message says what it takes."""


@dataclass(frozen=True)
class Call:
    """`ask`: its body -> a body for /invocations. `tell`: the predictions -> its answer.

    Predictions are a list for all but a few models of one's own.
    """

    ask: Callable[[bytes], bytes]
    tell: Callable[[Any], Any]


class _Samples(msgspec.Struct, forbid_unknown_fields=True):
    samples: msgspec.Raw


class _Features(msgspec.Struct, forbid_unknown_fields=True):
    X: Any


def make_samples_call(about: About) -> Call:
    """`{"samples": [{column: value}]}` -> `{"class_id": [...], "class_label": [...]}`."""
    places: dict[Label, int] = {label: place for place, label in enumerate(about.classes)}

    def ask(body: bytes) -> bytes:
        return b'{"dataframe_records":%s}' % bytes(_read(body, _Samples, '{"samples": [{...}]}').samples)

    def find(prediction: Any) -> int | None:
        if isinstance(prediction, list):  # the chance of each class
            return prediction.index(max(prediction))
        return places.get(prediction)

    def tell(predictions: Any) -> Any:
        if not places:
            return {"predictions": predictions}
        found = list(map(find, predictions))
        names = about.class_names or tuple(map(str, about.classes))
        return {"class_id": found, "class_label": [None if at is None else names[at] for at in found]}

    return Call(ask, tell)


def make_stream_call(about: About) -> Call:
    """`{"X": 0.2}`, or a row for a model of several features -> `{"y": one prediction}`."""

    def ask(body: bytes) -> bytes:
        row = _read(body, _Features, '{"X": number or row}').X
        return _make_split(about, [row if isinstance(row, list) else [row]])

    def tell(predictions: Any) -> Any:
        return {"y": predictions[0] if isinstance(predictions, list) else predictions}

    return Call(ask, tell)


def make_batch_call(about: About) -> Call:
    """`{"X": [0.2, 0.5]}`, or a list of rows -> `{"y": [...]}`."""

    def ask(body: bytes) -> bytes:
        rows = _read(body, _Features, '{"X": [number or row, ...]}').X
        if not isinstance(rows, list):
            raise BadCall('the body must be {"X": [number or row, ...]}')
        return _make_split(about, [row if isinstance(row, list) else [row] for row in rows])

    return Call(ask, lambda predictions: {"y": predictions})


def holds_samples(body: bytes) -> bool:
    """Whether it is a body of `make_samples_call`; anything else that comes to /predict is MLflow's."""
    try:
        _decode(body, type=_Samples)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def tell_predictions(call: Call, body: bytes) -> bytes:
    # MLflow says NaN for what is none, which only Python's own parser reads; the answer has null there.
    return _encode(call.tell(json.loads(body)["predictions"]))


def _read(body: bytes, kind: Any, shape: str) -> Any:
    try:
        return _decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadCall(f"the body must be {shape}: {error}") from error


def _make_split(about: About, rows: list[list[Any]]) -> bytes:
    width = len(about.columns)
    for row in rows:
        if len(row) != width:
            raise BadCall(f"a row of {len(row)} values; the model takes {width}: {', '.join(about.columns)}")
    return _encode({"dataframe_split": {"columns": about.columns, "data": rows}})
