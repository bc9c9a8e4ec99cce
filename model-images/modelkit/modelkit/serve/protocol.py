"""MLflow's /invocations: request formats, signature enforcement, answers and errors.

The parsing is MLflow's own function, so that it is the same to the letter. What it lets escape, and MLflow's
server would answer with 500, is told apart here: before the model was asked, the request was at fault.
"""

import csv
import io
import json
import logging
from typing import Any

import msgspec
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.scoring_server import CONTENT_TYPES, invocations
from msgspec import Struct

from modelkit.serve.answers import Answer, CountRows, Predict
from modelkit.serve.lean import UNREADABLE

_JSON = "application/json"
_SERVER_FAULT = 500
_MOST_QUOTED = 2**16  # characters
_MOST_COMPARED = 10**8  # names of columns: two seconds

log = logging.getLogger("modelkit.serve")


class _AskedModel:
    """Stands for the model in one request, and remembers whether that request got as far as the model."""

    def __init__(self, model: PyFuncModel, count_rows: CountRows) -> None:
        self.metadata = model.metadata
        self.was_asked = False
        self._model, self._count_rows = model, count_rows

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        self.was_asked = True
        if isinstance(data, pd.DataFrame):
            self._count_rows(len(data))
        return self._model.predict(data, params=params)


def make_predict(model: PyFuncModel, count_rows: CountRows) -> Predict:
    input_schema = model.metadata.get_input_schema()

    def predict(body: bytes, content_type: str | None) -> Answer:
        if content_type is None:
            return Answer(415, f"Content-Type is missing. Types: {CONTENT_TYPES}.".encode(), "text/plain")
        if len(body) > _MOST_QUOTED and not _is_text(body, content_type):
            return _refuse(MlflowException(f"Invalid input. The body is not {content_type}.", BAD_REQUEST))
        if _repeats_names(body, content_type):
            return _refuse(MlflowException("Too many columns of the same name.", BAD_REQUEST))
        asked = _AskedModel(model, count_rows)
        try:
            response, status, media_type = invocations(body, content_type, asked, input_schema)
        except MlflowException as error:
            at_fault = error.get_http_status_code() >= _SERVER_FAULT and not asked.was_asked
            return _refuse(error if not at_fault else MlflowException(error.message, BAD_REQUEST))
        except Exception as error:
            if asked.was_asked:
                log.exception("an answer of the model cannot be sent")
                return _refuse(MlflowException(f"The model's answer cannot be sent: {error}", INTERNAL_ERROR))
            message = f"Invalid input. {type(error).__name__}: {error}"
            return _refuse(MlflowException(message, BAD_REQUEST))
        return Answer(status, response.encode(), media_type)

    return predict


class _Split(Struct):
    columns: list[Any]


class _Body(Struct):
    dataframe_split: _Split | None = None


def _repeats_names(body: bytes, content_type: str) -> bool:
    """Whether pandas would take minutes: it compares each name that came before with all the others."""
    if body.count(b",") ** 2 <= _MOST_COMPARED:
        return False
    try:
        if content_type.startswith("text/csv"):
            lines = csv.reader(io.StringIO(body.decode(), newline=""))
            names = next((line for line in lines if len(line) > 1 or "".join(line).strip()), [])
        else:
            names = _read_names(body)
    except csv.Error:  # a name of more than 128 KiB
        return True
    except (*UNREADABLE, TypeError, AttributeError):  # MLflow refuses it by itself
        return False
    return (len(names) - len(set(names))) * len(names) > _MOST_COMPARED


def _read_names(body: bytes) -> list[str]:
    try:
        split = msgspec.json.decode(body, type=_Body).dataframe_split
        columns = [] if split is None else split.columns
    except UNREADABLE:  # MLflow takes more for JSON: NaN, UTF-16
        columns = json.loads(body).get("dataframe_split", {}).get("columns", [])
    return list(map(str, columns))


def _is_text(body: bytes, content_type: str) -> bool:
    """MLflow says what it cannot read in its answer, twice, and four characters for a byte."""
    is_json = content_type.startswith(_JSON)
    if not is_json and not content_type.startswith("text/csv"):
        return True  # MLflow does not look into it
    try:
        body.decode(json.detect_encoding(body) if is_json else "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _refuse(error: MlflowException) -> Answer:
    if len(error.message) > _MOST_QUOTED:
        error.message = f"{error.message[:_MOST_QUOTED]}..."
    return Answer(error.get_http_status_code(), error.serialize_as_json().encode(), _JSON)
