"""Which changes of a signature break somebody who sends to it or reads from it."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.predictions import find_misfit
from router.core.signatures import UnreadableSignature, compare_signatures

Json = dict[str, Any]


def column(name: str | None = None, kind: str = "double", **fields: object) -> Json:
    return ({} if name is None else {"name": name}) | {"type": kind, "required": True} | fields


def tensor(dtype: str = "float64", shape: tuple[int, ...] = (-1, 3), name: str | None = None) -> Json:
    return ({} if name is None else {"name": name}) | {
        "type": "tensor",
        "tensor-spec": {"dtype": dtype, "shape": list(shape)},
    }


def param(name: str = "k", kind: str = "integer", shape: object = None, default: object = 1) -> Json:
    return {"name": name, "type": kind, "shape": shape, "default": default}


def listed(kind: str) -> Json:
    return column("x", "array", items={"type": kind})


def shaped(**properties: Json) -> Json:
    return column("x", "object", properties=properties)


A, B = column("a"), column("b")
OPTIONAL = column("c", required=False)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ([A, B], [A], "input `b` is gone"),
        ([A], [column("years")], "input `a` is gone"),
        ([A], [column("years")], "input `years` is new and required"),
        ([A], [A, B], "input `b` is new and required"),
        ([A], [column("a", "string")], "input `a` was double and is string"),
        ([column("a", "long")], [column("a", "integer")], "input `a` was long and is integer"),
        ([column("a", "long")], [column("a", "double")], "input `a` was long and is double"),
        ([column("a", "any")], [A], "input `a` was any and is double"),
        ([OPTIONAL], [column("c")], "input `c` was optional and is required"),
        ([A], None, "it does not say any more what it takes"),
        ([column(), column()], [column()], "input `1` is gone"),
        ([column()], [A], "input `0` is gone"),
        ([tensor()], [tensor("int64")], "input `0` was float64 and is int64"),
        ([tensor("float64")], [tensor("float32")], "input `0` was float64 and is float32"),
        ([tensor()], [tensor(shape=(-1, 4))], "had the shape [-1, 3] and has [-1, 4]"),
        ([tensor()], [tensor(shape=(-1, 3, 1))], "had the shape [-1, 3] and has [-1, 3, 1]"),
        ([tensor()], [tensor(shape=(8, 3))], "had the shape [-1, 3] and has [8, 3]"),
        ([tensor()], [column()], "input `0` was tensor and is double"),
        ([listed("long")], [listed("string")], "input `x`, items was long and is string"),
        ([shaped(y=A)], [shaped(y=A, z=B)], "input `x`, property `z` is new and required"),
        ([shaped(y=A)], [shaped()], "input `x`, property `y` is gone"),
    ],
)
def test_a_request_of_today_that_would_be_refused_breaks(was: Any, now: Any, said: str) -> None:
    assert said in "; ".join(compare_signatures({"inputs": was}, {"inputs": now}).breaks)


@pytest.mark.parametrize(
    ("was", "now", "noted"),
    [
        ([A, B], [B, A], []),
        ([A], [A, OPTIONAL], ["input `c` is new and optional"]),
        ([A], [column("a", required=False)], ["input `a` was required and is optional"]),
        ([column("a", "integer")], [column("a", "long")], ["input `a` was integer and is long"]),
        ([column("a", "float")], [A], ["input `a` was float and is double"]),
        ([A], [column("a", "any")], ["input `a` takes anything now"]),
        ([{"name": "a", "type": "double", "optional": True}], [column("a", required=False)], []),
        ([tensor("float32")], [tensor("float64")], ["input `0` was float32 and is float64"]),
        ([tensor(shape=(8, 3))], [tensor()], ["input `0` had the shape [8, 3] and has [-1, 3]"]),
        ([listed("integer")], [listed("long")], ["input `x`, items was integer and is long"]),
        (None, [A], ["the active model does not say what it takes"]),
        (None, None, []),
    ],
)
def test_what_takes_more_than_before_breaks_nobody(was: Any, now: Any, noted: list[str]) -> None:
    compared = compare_signatures({"inputs": was}, {"inputs": now})
    assert (compared.breaks, list(compared.notes)) == ((), noted)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ([column()], [column(kind="long")], "output `0` was double and is long"),
        ([column(kind="integer")], [column(kind="long")], "output `0` was integer and is long"),
        ([column()], [column(), column()], "output `1` is new"),
        ([A], [B], "output `a` is gone"),
        ([tensor(shape=(-1,))], [tensor(shape=(-1, 1))], "a tensor of float64, [-1, 1]"),
        ([column()], [tensor(shape=(-1,))], "was double and is a tensor of float64, [-1]"),
        ([A], [column("a", required=False)], "output `a` is not always there now"),
        ([A], None, "it does not say any more what it answers"),
    ],
)
def test_any_change_of_the_answer_breaks(was: Any, now: Any, said: str) -> None:
    assert said in "; ".join(compare_signatures({"outputs": was}, {"outputs": now}).breaks)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ([param()], [], "parameter `k` is gone"),
        ([param()], [param(kind="string")], "parameter `k` was integer and is string"),
        ([param()], [param(shape=[-1])], "parameter `k` had the shape of a single value and has [-1]"),
    ],
)
def test_a_parameter_that_is_lost_or_changed_breaks(was: Any, now: Any, said: str) -> None:
    assert said in "; ".join(compare_signatures({"params": was}, {"params": now}).breaks)


def test_parameters_have_defaults_so_new_ones_break_nobody() -> None:
    compared = compare_signatures({"params": [param()]}, {"params": [param(default=2), param("more")]})
    assert compared.breaks == ()
    assert compared.notes == ("parameter `k` has another default", "parameter `more` is new")


@pytest.mark.parametrize("part", [{"inputs": "x"}, {"outputs": [1]}, {"inputs": [{"type": "tensor"}]}])
def test_what_mlflow_does_not_write_is_not_read(part: Json) -> None:
    with pytest.raises(UnreadableSignature):
        compare_signatures(part, part)


# --- for any signature ------------------------------------------------------------------------------------

KINDS = ["boolean", "integer", "long", "float", "double", "string", "datetime", "any"]
columns = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.sampled_from(KINDS), st.booleans()), max_size=6
).map(lambda named: [column(name, kind, required=needed) for name, (kind, needed) in named.items()])
signatures = st.fixed_dictionaries({"inputs": columns, "outputs": columns})


@given(signatures)
def test_a_model_never_breaks_its_own_clients(signature: Json) -> None:
    compared = compare_signatures(signature, signature)
    assert (compared.breaks, compared.notes) == ((), ())


@given(signatures, signatures, signatures)
def test_what_breaks_nobody_twice_breaks_nobody(first: Json, second: Json, third: Json) -> None:
    def fits(was: Json, now: Json) -> bool:
        return not compare_signatures(was, now).breaks

    if fits(first, second) and fits(second, third):
        gone_between = {c["name"] for c in first["inputs"]} - {c["name"] for c in third["inputs"]}
        assert not gone_between
        assert fits(first, third)


@given(signatures, st.data())
def test_to_take_a_column_away_always_breaks(signature: Json, data: st.DataObject) -> None:
    part = data.draw(st.sampled_from(["inputs", "outputs"]))
    kept = data.draw(st.lists(st.sampled_from(signature[part]), unique_by=str)) if signature[part] else []
    compared = compare_signatures(signature, {**signature, part: kept})
    assert bool(compared.breaks) == (len(kept) < len(signature[part]))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from(["tensor", "object", "array", "integer"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "type", "tensor-spec", "shape", "items", "properties"]),
            inner,
        )
    ),
)
oddities = st.dictionaries(st.sampled_from(["inputs", "outputs", "params"]), anything)


@given(oddities, oddities)
def test_whatever_stands_in_a_model_file_is_compared_or_called_unreadable(first: Json, second: Json) -> None:
    with suppress(UnreadableSignature):
        compare_signatures(first, second)


@given(oddities, anything)
def test_whatever_is_promised_an_answer_fits_or_not(signature: Json, predictions: Any) -> None:
    with suppress(UnreadableSignature):
        find_misfit(b'{"inputs": [[1]]}', predictions, signature)
