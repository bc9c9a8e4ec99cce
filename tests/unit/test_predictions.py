"""Whether an answer has the shape that was promised."""

import json
from typing import Any

import pytest

from router.core.predictions import count_rows, find_misfit

TENSOR = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
SINGLE = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [2]}}
NUMBER = {"type": "double", "required": True}
PAIR = [{"name": "low", "type": "double"}, {"name": "label", "type": "string"}]


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"inputs": [[1], [2]]}, 2),
        ({"inputs": {"a": [1, 2, 3], "b": [1, 2, 3]}}, 3),
        ({"inputs": {"a": [1, 2, 3], "b": [1]}}, None),
        ({"inputs": "a text"}, None),
        ({"instances": [{"a": 1}]}, 1),
        ({"dataframe_records": [{"a": 1}, {"a": 2}]}, 2),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [2], [3]]}}, 3),
        ({"messages": []}, None),
        ([1, 2], None),
    ],
)
def test_rows_of_every_form_of_body_are_counted(body: object, rows: int | None) -> None:
    assert count_rows(json.dumps(body).encode()) == rows


@pytest.mark.parametrize(
    ("predictions", "outputs", "said"),
    [
        ([1.0, 2.0], None, None),
        ([1.0], None, "2 rows were asked and 1 predictions were answered"),
        ({"mean": [1, 2], "sd": [1]}, None, "1 predictions of `sd` were answered"),
        ("a text", None, None),
        ([1.0, 2.0], [NUMBER], None),
        ([[1.0], [2.0]], [NUMBER], None),
        ([1, True], [NUMBER], "`0` is true and the signature promises double"),
        ([1, 2.0], [{"type": "long"}], None),
        ([1, 2.5], [{"type": "long"}], "`0` is 2.5 and the signature promises long"),
        (["a", "b"], [{"type": "string"}], None),
        ([0, 1], [{"type": "boolean"}], "`0` is 0 and the signature promises boolean"),
        ([{"low": 1.0, "label": "x"}] * 2, PAIR, None),
        ([[1.0, "x"]] * 2, PAIR, None),
        ([{"score": 1}] * 2, [{"type": "object", "properties": {"score": {"type": "long"}}}], None),
        ([{"a": 1}] * 2, [{"type": "map", "values": {"type": "long"}}], None),
        ([{"a": 1}] * 2, [NUMBER], "the prediction lacks `0`, which the signature promises"),
        ([[1.0]] * 2, PAIR, "a prediction has 1 values and the signature promises 2"),
        ([{"low": 1.0}] * 2, PAIR, "the prediction lacks `label`"),
        ([1.0, 2.0], PAIR, "a prediction is one value and the signature promises 2"),
        ([[1.0, 2.0]] * 2, [TENSOR], None),
        ([1.0, 2.0], [TENSOR], "the answer has the shape [2] and the signature promises [-1, 2]"),
        ([[1.0, 2.0, 3.0]] * 2, [TENSOR], "the answer has the shape [2, 3]"),
        ([["a", "b"]] * 2, [TENSOR], "the answer is no number and the signature promises float32"),
        ({"y": [[1, 2]] * 2}, [TENSOR | {"name": "y"}], None),
        ({"z": [[1, 2]] * 2}, [TENSOR | {"name": "y"}], "the answer lacks `y`"),
        ([[1, 2]] * 2, [TENSOR | {"name": "y"}, TENSOR | {"name": "z"}], "the tensors y, z"),
    ],
)
def test_an_answer_for_two_rows(predictions: Any, outputs: Any, said: str | None) -> None:
    misfit = find_misfit(b'{"inputs": [[1], [2]]}', predictions, outputs and {"outputs": outputs})
    assert misfit is None if said is None else said in str(misfit)


def test_a_tensor_without_a_batch_is_one_thing_and_not_rows() -> None:
    signature = {"inputs": [SINGLE], "outputs": [{"type": "tensor", "tensor-spec": {"shape": [1]}}]}
    assert find_misfit(b'{"inputs": [1.0, 2.0]}', [5.0], signature) is None


def test_a_body_that_is_not_json_has_no_rows_to_count() -> None:
    assert count_rows(b"1,2,3") is None
