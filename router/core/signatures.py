"""Whether what clients send to one model, and read from it, still fits another: MLflow signatures compared.

What clients send must be taken by the candidate, so its inputs may be wider. What they read must be what they
know: any change of the outputs breaks somebody.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]

WIDER = {
    "integer": {"long", "double"},
    "float": {"double"},
    **{f"int{bits}": {f"int{more}" for more in (16, 32, 64) if more > bits} for bits in (8, 16, 32)},
    **{f"uint{bits}": {f"uint{more}" for more in (16, 32, 64) if more > bits} for bits in (8, 16, 32)},
    "float16": {"float32", "float64"},
    "float32": {"float64"},
}
ANY = "any"
TYPE_KEYS = ("type", "items", "properties", "values", "tensor-spec")


class UnreadableSignature(ValueError):
    """Not in the form that MLflow writes."""


@dataclass(frozen=True)
class Comparison:
    breaks: tuple[str, ...]
    notes: tuple[str, ...]  # differences that break nobody


def compare_signatures(active: Spec, candidate: Spec) -> Comparison:
    """Raises UnreadableSignature."""
    notes: list[str] = []
    breaks = [
        *_compare_inputs(active, candidate, notes),
        *_compare_outputs(active, candidate, notes),
        *_compare_params(active, candidate, notes),
    ]
    return Comparison(tuple(breaks), tuple(notes))


def _compare_inputs(active: Spec, candidate: Spec, notes: list[str]) -> Iterator[str]:
    was, now = read_columns(active, "inputs"), read_columns(candidate, "inputs")
    if was is None:
        if now is not None:
            notes.append("the active model does not say what it takes")
    elif now is None:
        yield "it does not say any more what it takes"
    else:
        yield from _find_lost_inputs(was, now, "input", notes)


def _find_lost_inputs(
    was: Mapping[str, Spec], now: Mapping[str, Spec], word: str, notes: list[str]
) -> Iterator[str]:
    for name, spec in was.items():
        where = f"{word} `{name}`"
        if name not in now:
            yield f"{where} is gone"
            continue
        if _is_required(now[name]) and not _is_required(spec):
            yield f"{where} was optional and is required"
        elif _is_required(spec) and not _is_required(now[name]):
            notes.append(f"{where} was required and is optional")
        yield from _find_narrower(spec, now[name], where, notes)
    for name, spec in now.items():
        if name in was:
            continue
        if _is_required(spec):
            yield f"{word} `{name}` is new and required"
        else:
            notes.append(f"{word} `{name}` is new and optional")


def _find_narrower(was: Spec, now: Spec, where: str, notes: list[str]) -> Iterator[str]:
    """What the first takes and the second does not."""
    kind, became = str(was.get("type")), str(now.get("type"))
    if became == ANY:
        if kind != ANY:
            notes.append(f"{where} takes anything now")
    elif kind != became:
        if became in WIDER.get(kind, ()):
            notes.append(f"{where} was {kind} and is {became}")
        else:
            yield f"{where} was {kind} and is {became}"
    elif kind == "tensor":
        yield from _find_narrower_tensor(was, now, where, notes)
    elif kind == "object":
        parts = _read_map(was, "properties"), _read_map(now, "properties")
        yield from _find_lost_inputs(*parts, f"{where}, property", notes)
    elif kind in {"array", "map"}:
        part = "items" if kind == "array" else "values"
        yield from _find_narrower(_read_map(was, part), _read_map(now, part), f"{where}, {part}", notes)


def _find_narrower_tensor(was: Spec, now: Spec, where: str, notes: list[str]) -> Iterator[str]:
    (kind, shape), (became, new_shape) = read_tensor(was), read_tensor(now)
    if kind != became:
        text = f"{where} was {kind} and is {became}"
        if became in WIDER.get(kind, ()):
            notes.append(text)
        else:
            yield text
    yield from _find_narrower_shape(shape, new_shape, where, notes)


def _find_narrower_shape(was: list[int], now: list[int], where: str, notes: list[str]) -> Iterator[str]:
    if was == now:
        return
    text = f"{where} had the shape {was} and has {now}"
    if len(was) == len(now) and all(after in {-1, before} for before, after in zip(was, now, strict=True)):
        notes.append(text)
    else:
        yield text


def _compare_outputs(active: Spec, candidate: Spec, notes: list[str]) -> Iterator[str]:
    was, now = read_columns(active, "outputs"), read_columns(candidate, "outputs")
    if was is None:
        if now is not None:
            notes.append("the active model does not say what it answers")
        return
    if now is None:
        yield "it does not say any more what it answers"
        return
    for name, spec in was.items():
        if name not in now:
            yield f"output `{name}` is gone"
        elif _type_of(spec) != _type_of(now[name]):
            yield f"output `{name}` was {_tell(spec)} and is {_tell(now[name])}"
        elif _is_required(spec) != _is_required(now[name]):
            yield f"output `{name}` is {'always' if _is_required(now[name]) else 'not always'} there now"
    yield from (f"output `{name}` is new" for name in now if name not in was)


def _compare_params(active: Spec, candidate: Spec, notes: list[str]) -> Iterator[str]:
    was, now = read_columns(active, "params") or {}, read_columns(candidate, "params") or {}
    for name, spec in was.items():
        where = f"parameter `{name}`"
        if name not in now:
            yield f"{where} is gone"
            continue
        yield from _find_narrower(spec, now[name], where, notes)
        before, after = spec.get("shape"), now[name].get("shape")
        if before != after:
            yield f"{where} had the shape {_tell_shape(before)} and has {_tell_shape(after)}"
        if spec.get("default") != now[name].get("default"):
            notes.append(f"{where} has another default")
    notes += [f"parameter `{name}` is new" for name in now if name not in was]  # each has a default


def read_columns(signature: Spec, part: str) -> dict[str, Spec] | None:
    """By name, or by position where columns have none. None: the signature does not have this part."""
    columns = signature.get(part)
    if columns is None:
        return None
    if not isinstance(columns, list) or not all(isinstance(column, Mapping) for column in columns):
        raise UnreadableSignature(f"its {part} are not a list of columns")
    return {str(column.get("name", position)): column for position, column in enumerate(columns)}


def read_tensor(spec: Spec) -> tuple[str, list[int]]:
    """Its dtype and its shape, in which -1 is any number."""
    tensor = _read_map(spec, "tensor-spec")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise UnreadableSignature("a tensor has no shape")
    return str(tensor.get("dtype")), shape


def _read_map(spec: Spec, key: str) -> Spec:
    value = spec.get(key)
    if not isinstance(value, Mapping):
        raise UnreadableSignature(f"a column of type {spec.get('type')} has no `{key}`")
    return value


def _is_required(spec: Spec) -> bool:
    """MLflow writes `optional` in older versions, and nothing at all for what is required there."""
    return bool(spec.get("required", not spec.get("optional", False)))


def _type_of(spec: Spec) -> dict[str, Any]:
    return {key: spec.get(key) for key in TYPE_KEYS}


def _tell(spec: Spec) -> str:
    if spec.get("type") != "tensor":
        return str(spec.get("type"))
    dtype, shape = read_tensor(spec)
    return f"a tensor of {dtype}, {shape}"


def _tell_shape(shape: Any) -> str:
    return "of a single value" if shape is None else str(shape)
