"""The calls that clients of earlier services make, each turned into /invocations and its answer turned back.

A refusal passes as it is: MLflow's status and error shape.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from modelkit.manifest import Label
from modelkit.serve.answers import About, Answer
from modelkit.serve.lean import UNREADABLE

_JSON = "application/json"

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class BadCall(Exception):
    """The body is not what this call takes; the message says what it takes."""


@dataclass(frozen=True)
class Call:
    """`ask`: its body -> a body for /invocations; None: it is one already, and so is its answer.

    `tell`: the predictions -> its answer.
    """

    ask: Callable[[bytes], bytes | None]
    tell: Callable[[Any], Any]

    def translate(self, answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        # MLflow says NaN for what is none, which only Python's own parser reads; the answer has null there.
        return Answer(200, _encode(self.tell(json.loads(answer.body)["predictions"])), _JSON)


class _Samples(msgspec.Struct, forbid_unknown_fields=True):
    samples: msgspec.Raw


class _Features(msgspec.Struct, forbid_unknown_fields=True):
    X: Any


def make_samples_call(about: About) -> Call:
    """`{"samples": [{column: value}]}` -> `{"class_id": [...], "class_label": [...]}`.

    Of a model that tells chances, the likeliest. Predictions that are no classes are told as they are.
    """
    places: dict[Label, int] = {label: place for place, label in enumerate(about.classes)}
    names = tuple(map(str, about.labels))

    def ask(body: bytes) -> bytes | None:
        try:
            samples = _decode(body, type=_Samples).samples
        except UNREADABLE:
            return None
        return b'{"dataframe_records":%s}' % bytes(samples)

    def find(prediction: Any) -> int | None:
        if isinstance(prediction, list):
            is_chances = len(prediction) == len(places) and all(
                isinstance(part, float) for part in prediction
            )
            return prediction.index(max(prediction)) if is_chances else None
        return places.get(prediction) if isinstance(prediction, Label) else None

    def tell(predictions: Any) -> Any:
        found = [find(prediction) for prediction in predictions] if isinstance(predictions, list) else [None]
        if not places or None in found:
            return {"predictions": predictions}
        return {"class_id": found, "class_label": [names[place] for place in found if place is not None]}

    return Call(ask, tell)


def make_stream_call(about: About) -> Call:
    """`{"X": 0.2}`, or a row for a model of several features -> `{"y": one prediction}`."""

    def ask(body: bytes) -> bytes:
        row = _read(body, '{"X": number or row}')
        return _make_split(about, [row if isinstance(row, list) else [row]])

    def tell(predictions: Any) -> Any:
        return {"y": predictions[0] if isinstance(predictions, list) and predictions else predictions}

    return Call(ask, tell)


def make_batch_call(about: About) -> Call:
    """`{"X": [0.2, 0.5]}`, or a list of rows -> `{"y": [...]}`."""

    def ask(body: bytes) -> bytes:
        rows = _read(body, '{"X": [number or row, ...]}')
        if not isinstance(rows, list):
            raise BadCall('the body must be {"X": [number or row, ...]}')
        return _make_split(about, [row if isinstance(row, list) else [row] for row in rows])

    return Call(ask, lambda predictions: {"y": predictions})


def _read(body: bytes, shape: str) -> Any:
    try:
        return _decode(body, type=_Features).X
    except UNREADABLE as error:
        raise BadCall(f"the body must be {shape}: {error}") from error


def _make_split(about: About, rows: list[list[Any]]) -> bytes:
    width = len(about.columns)
    for row in rows:
        if len(row) != width:
            raise BadCall(f"a row of {len(row)} values; the model takes {width}: {', '.join(about.columns)}")
    return _encode({"dataframe_split": {"columns": about.columns, "data": rows}})
