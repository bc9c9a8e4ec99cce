"""Compiles a fitted scikit-learn model to ONNX, which a server answers from a hundred times faster.

No export is trusted: `proving` compares it with the native model. The smallest precision that passes is kept;
where none does, the native model is served and the reason is told.
"""

import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from mlflow.types import DataType, Schema
from onnx import load_model_from_string
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
from sklearn.base import is_classifier

from modelkit.compiled import is_number
from modelkit.manifest import Column, ColumnType, Manifest
from modelkit.train.boosters import register_boosters
from modelkit.train.proving import Proof, Unproven, prove

_TOLERANCES = {"float32": 1e-5, "float64": 1e-9}
_TYPES: dict[object, ColumnType] = {
    DataType.double: "double",
    DataType.float: "float",
    DataType.long: "long",
    DataType.integer: "integer",
    DataType.string: "string",
    DataType.boolean: "boolean",
}
_ANSWERS = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "O": "string", "U": "string"}
_OPERATORS = {"": 18, "ai.onnx.ml": 3}  # versions that every converter and runtime knows
# A converter takes half a second and 15 MiB of memory for each MiB of a forest, in the trainer's own process.
_MOST_BYTES = 64 * 2**20  # of the native model
_MOST_SECONDS = 60.0  # after which no other form is tried
_LONGEST_REASON = 400  # characters; it becomes a tag

log = logging.getLogger("modelkit.train")


@dataclass(frozen=True)
class Compiled:
    graph: bytes
    manifest: Manifest


class NotCompiled(Exception):
    """The native model will be served; the message is the reason."""


def compile_model(
    model: Any, schema: Schema, proof: Proof, native_bytes: int = 0, most_seconds: float = _MOST_SECONDS
) -> Compiled:
    """The first export that is proven. Raises NotCompiled, and nothing else: the training was good."""
    started = time.monotonic()
    if native_bytes > _MOST_BYTES:
        raise NotCompiled(
            f"not compiled: of {native_bytes / 2**20:.0f} MiB, {_MOST_BYTES // 2**20} are tried at most"
        )
    columns = _read_columns(schema)
    try:
        register_boosters()
    except Exception:
        log.warning("XGBoost and LightGBM models cannot be compiled", exc_info=True)
    reasons: list[str] = []
    for matrix, precision in _forms(columns):
        if reasons and time.monotonic() - started > most_seconds:
            log.info("no other form is tried after %.0f s", most_seconds)
            break
        try:
            graph = _export(model, columns, matrix, precision)
            manifest = _describe(model, graph, columns, matrix, precision, proof)
            return Compiled(graph, prove(graph, manifest, proof))
        except Unproven as error:
            reasons.append(f"{precision}: not proven: {error}")
        except Exception as error:  # noqa: BLE001 - converters and runtime fail in every way there is
            reasons.append(f"{precision}: not convertible: {type(error).__name__}: {error}")
        log.info("compiled form refused, %s", reasons[-1])
    raise NotCompiled(" ".join(reasons[0].split())[:_LONGEST_REASON])


def _read_columns(schema: Schema) -> tuple[Column, ...]:
    if not schema.has_input_names() or schema.is_tensor_spec():
        raise NotCompiled("not convertible: the signature has no named columns")
    columns = []
    for spec in schema.inputs:
        if not isinstance(spec.type, DataType) or spec.type not in _TYPES or not isinstance(spec.name, str):
            raise NotCompiled(f"not convertible: column {spec.name!r} is of type {spec.type}")
        columns.append(Column(spec.name, _TYPES[spec.type]))
    return tuple(columns)


def _forms(columns: tuple[Column, ...]) -> Iterator[tuple[bool, str]]:
    """A model that selects columns by name needs one input for each; any other is faster with one for all."""
    numbers = all(is_number(column) for column in columns)
    for precision in _TOLERANCES:
        if numbers:
            yield True, precision
        yield False, precision


def _export(model: Any, columns: tuple[Column, ...], matrix: bool, precision: str) -> bytes:
    number = FloatTensorType if precision == "float32" else DoubleTensorType
    if matrix:
        inputs = [("X", number([None, len(columns)]))]
    else:
        kinds = [number if is_number(column) else StringTensorType for column in columns]  # 1 for true
        inputs = [(column.name, kind([None, 1])) for column, kind in zip(columns, kinds, strict=True)]
    options = {id(model): {"zipmap": False}} if is_classifier(model) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter's own making
        compiled = to_onnx(model, initial_types=inputs, options=options, target_opset=_OPERATORS)
    graph: bytes = compiled.SerializeToString()
    return graph


def _describe(
    model: Any, graph: bytes, columns: tuple[Column, ...], matrix: bool, precision: str, proof: Proof
) -> Manifest:
    """What the native model answers with decides how the graph's answer is read."""
    answer = proof.ask(proof.rows.head(2))
    kind = _ANSWERS.get(answer.dtype.kind, "number")
    if proof.predict_fn == "predict" and is_classifier(model) and kind == "number":
        raise Unproven("its classes are fractions")
    outputs = [output.name for output in load_model_from_string(graph).graph.output]
    return msgspec.convert(
        {
            "columns": columns,
            "matrix": matrix,
            "precision": precision,
            "output": outputs[1 if proof.predict_fn == "predict_proba" else 0],
            "answer": kind,
            "flat": answer.ndim == 1,
            "tolerance": _TOLERANCES[precision],
            "difference": 0.0,
            "rows": 0,
        },
        Manifest,
    )
