"""Whether predictions have the promised shape: one for each row asked, of the signature's types."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from router.core.signatures import Spec, read_columns, read_tensor

NUMBERS = {"long", "integer", "float", "double"}
WHOLE = {"long", "integer"}


def find_misfit(asked: bytes, predictions: Any, signature: Spec | None) -> str | None:
    """What is wrong with the answer to this body, in words. Raises UnreadableSignature."""
    signature = signature or {}
    inputs, outputs = read_columns(signature, "inputs"), read_columns(signature, "outputs")
    rows = count_rows(asked, inputs)
    if rows is not None:
        for name, values in _split(predictions).items():
            if isinstance(values, list) and len(values) != rows:
                named = f" of `{name}`" if name else ""
                return f"{rows} rows were asked and {len(values)} predictions{named} were answered"
    if not outputs:
        return None
    if any(spec.get("type") == "tensor" for spec in outputs.values()):
        return _find_tensor_misfit(predictions, outputs)
    return _find_column_misfit(predictions, outputs)


def count_rows(asked: bytes, inputs: Mapping[str, Spec] | None = None) -> int | None:
    """Of a body for `/invocations`; None where it does not say."""
    try:
        body = json.loads(asked)
    except (ValueError, RecursionError):  # the server has understood it; that is enough
        return None
    if not isinstance(body, dict) or _is_without_rows(inputs):
        return None
    if isinstance(split := body.get("dataframe_split"), dict):
        return _length(split.get("data"))
    for key in ("dataframe_records", "instances", "inputs"):
        if key in body:
            given = body[key]
            if isinstance(given, dict):
                lengths = {_length(values) for values in given.values()}
                return lengths.pop() if len(lengths) == 1 else None
            return _length(given)
    return None


def _is_without_rows(inputs: Mapping[str, Spec] | None) -> bool:
    """A tensor whose first dimension is fixed is one thing and not a batch."""
    tensors = [spec for spec in (inputs or {}).values() if spec.get("type") == "tensor"]
    return any(read_tensor(spec)[1][:1] != [-1] for spec in tensors)


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, list) else None


def _split(predictions: Any) -> dict[str, Any]:
    """Named outputs each have their own list."""
    return predictions if isinstance(predictions, dict) else {"": predictions}


def _find_column_misfit(predictions: Any, outputs: Mapping[str, Spec]) -> str | None:
    for row in predictions if isinstance(predictions, list) else [predictions]:
        if isinstance(row, dict) and _is_one_object(outputs, row):
            named = {next(iter(outputs)): row}
        elif isinstance(row, dict):
            promised = [name for name, spec in outputs.items() if spec.get("required", True)]
            if missing := [name for name in promised if name not in row]:
                return f"the prediction lacks `{missing[0]}`, which the signature promises"
            named = {name: row[name] for name in outputs if name in row}
        elif isinstance(row, list) and len(outputs) > 1:
            if len(row) != len(outputs):
                return f"a prediction has {len(row)} values and the signature promises {len(outputs)}"
            named = dict(zip(outputs, row, strict=True))
        elif len(outputs) == 1:
            named = {next(iter(outputs)): row}
        else:
            return f"a prediction is one value and the signature promises {len(outputs)}"
        for name, value in named.items():
            kind = str(outputs[name].get("type"))
            if not _fits(value, kind):
                return f"`{name}` is {json.dumps(value)[:100]} and the signature promises {kind}"
    return None


def _is_one_object(outputs: Mapping[str, Spec], row: Mapping[str, Any]) -> bool:
    """Whether a row is itself the one output, which has no name: so MLflow writes a type hint's output."""
    (name, spec), *others = outputs.items()
    nameless = not others and "name" not in spec and name not in row
    return nameless and spec.get("type") in {"object", "map", "any"}


def _fits(value: Any, kind: str) -> bool:
    """Columns of a matrix may come as lists of one; types that JSON has no word for are not looked at."""
    if isinstance(value, list) and len(value) == 1 and kind != "array":
        return _fits(value[0], kind)
    if kind in NUMBERS:
        return _is_number(value) and (kind not in WHOLE or float(value).is_integer())
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    return True


def _find_tensor_misfit(predictions: Any, outputs: Mapping[str, Spec]) -> str | None:
    if len(outputs) == 1 and not isinstance(predictions, dict):
        predictions = {next(iter(outputs)): predictions}
    if not isinstance(predictions, dict):
        return f"the signature promises the tensors {', '.join(outputs)}"
    for name, spec in outputs.items():
        if name not in predictions:
            return f"the answer lacks `{name}`, which the signature promises"
        dtype, shape = read_tensor(spec)
        found = _shape_of(predictions[name])
        if len(found) != len(shape) or any(
            want not in {-1, have} for want, have in zip(shape, found, strict=True)
        ):
            return f"the answer has the shape {found} and the signature promises {shape}"
        numeric = dtype.startswith(("float", "int", "uint"))
        if numeric and not _is_number(_first_of(predictions[name])):
            return f"the answer is no number and the signature promises {dtype}"
    return None


def _shape_of(value: Any) -> list[int]:
    """By the first of each level."""
    shape: list[int] = []
    while isinstance(value, Sequence) and not isinstance(value, str):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _first_of(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
