"""What the router reads in a logged model's own files, so that every driver reads them alike."""

import json
from typing import Any

import yaml

from router.core.errors import InvalidRequest

MODEL_FILE = "MLmodel"
# Model files that the router reads are descriptions and examples; a larger one is a mistake, not a model's.
MAX_FILE_BYTES = 16 * 2**20


def parse_model_file(content: bytes) -> dict[str, Any]:
    try:
        described = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest("the model's MLmodel file is not valid YAML") from error
    if not isinstance(described, dict):
        raise InvalidRequest("the model's MLmodel file is not a mapping")
    return described


def parse_signature(described: dict[str, Any]) -> dict[str, Any] | None:
    """MLflow stores each part of a signature as JSON text inside the YAML."""
    signature = described.get("signature")
    if not signature:
        return None
    try:
        return {part: text and json.loads(text) for part, text in signature.items()}
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise InvalidRequest("the signature in the model's MLmodel file cannot be read") from error


def find_example_file(described: dict[str, Any]) -> str | None:
    """Path of the input example, in the form for serving where the trainer's MLflow saved one."""
    info = described.get("saved_input_example_info") or {}
    path = info.get("serving_input_path") or info.get("artifact_path")
    return str(path) if path else None


def make_example_body(described: dict[str, Any], content: bytes) -> bytes | None:
    """The example as a body for `/invocations`; none if it was saved in a form that only its flavor reads.

    Older MLflow saved no form for serving. A data frame was then written with `orient="split"`, without the
    key that `/invocations` wants around it.
    """
    info = described.get("saved_input_example_info") or {}
    if info.get("serving_input_path"):
        return content
    if (info.get("type"), info.get("pandas_orient")) == ("dataframe", "split"):
        return b'{"dataframe_split": ' + content + b"}"
    return None
