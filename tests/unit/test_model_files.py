"""How a model's own files are read, in the forms that MLflow has written them over the years."""

import json

import pytest

from router.core.errors import InvalidRequest
from router.registries.model_files import (
    find_example_file,
    make_example_body,
    parse_model_file,
    parse_signature,
)

SPLIT = b'{"columns": ["age"], "data": [[0.5]]}'


def test_each_part_of_a_signature_is_json_inside_the_yaml() -> None:
    described = parse_model_file(
        b"""
signature:
  inputs: '[{"type": "double", "name": "age", "required": true}, {"type": "double",
    "name": "weight", "required": true}]'
  outputs: '[{"type": "double"}]'
  params: null
"""
    )
    signature = parse_signature(described)
    assert signature is not None
    assert [column["name"] for column in signature["inputs"]] == ["age", "weight"]
    assert signature["outputs"] == [{"type": "double"}]
    assert signature["params"] is None


@pytest.mark.parametrize("content", [b"flavors: {}", b"signature: null"])
def test_a_model_may_have_no_signature(content: bytes) -> None:
    assert parse_signature(parse_model_file(content)) is None


@pytest.mark.parametrize("content", [b"", b"- a list", b"{", b"\xff\xfe", b"a: !!python/object:os.system {}"])
def test_what_is_no_model_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match="MLmodel"):
        parse_model_file(content)


@pytest.mark.parametrize("signature", ["inputs: '[{'", "inputs: [1]"])
def test_a_signature_that_cannot_be_read_is_refused(signature: str) -> None:
    with pytest.raises(InvalidRequest, match="signature"):
        parse_signature(parse_model_file(f"signature: {{{signature}}}".encode()))


def test_the_example_in_its_form_for_serving_is_taken_as_it_is() -> None:
    info = {"artifact_path": "input_example.json", "serving_input_path": "serving.json", "type": "dataframe"}
    described = {"saved_input_example_info": info}
    assert find_example_file(described) == "serving.json"
    assert make_example_body(described, b'{"inputs": [1]}') == b'{"inputs": [1]}'


def test_a_data_frame_saved_by_an_older_client_becomes_a_body() -> None:
    info = {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split"}
    described = {"saved_input_example_info": info}
    assert find_example_file(described) == "input_example.json"
    body = make_example_body(described, SPLIT)
    assert body is not None
    assert json.loads(body) == {"dataframe_split": json.loads(SPLIT)}


def test_an_example_that_only_its_flavor_can_read_is_none() -> None:
    info = {"artifact_path": "input_example.json", "type": "sparse_matrix_csr"}
    assert make_example_body({"saved_input_example_info": info}, b"{}") is None


def test_a_model_may_have_no_example() -> None:
    assert find_example_file({"saved_input_example_info": None}) is None
    assert find_example_file({}) is None
