"""What the router reads in a logged model's own files, so that every driver reads them alike."""

import json
from typing import Any

import yaml

from router.core.errors import InvalidRequest

MODEL_FILE = "MLmodel"
# Model files that the router reads are descriptions and examples; a larger one is a mistake, not a model's.
MAX_FILE_BYTES = 16 * 2**20
MAX_DESCRIPTION_BYTES = 2**20  # of YAML, which takes a second then
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_model_file(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_DESCRIPTION_BYTES:
        raise InvalidRequest(f"the model's MLmodel file is larger than {MAX_DESCRIPTION_BYTES} bytes")
    try:
        described = yaml.load(content, Loader=_Loader)  # noqa: S506 - one of the safe ones
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequest("the signature in the model's MLmodel file cannot be read") from error


def find_example_file(described: dict[str, Any]) -> str | None:
    """Path of the input example, in the form for serving where the trainer's MLflow saved one."""
    info = _read_example_info(described)
    path = info.get("serving_input_path") or info.get("artifact_path")
    # Anything else is not made text: a few aliases of YAML may stand for gigabytes of it.
    if path is not None and not isinstance(path, str):
        raise InvalidRequest("the path of the input example in the model's MLmodel file is not text")
    return path or None


def make_example_body(described: dict[str, Any], content: bytes) -> bytes | None:
    """The example as a body for `/invocations`; none if it was saved in a form that only its flavor reads.

    Older MLflow saved no form for serving. A data frame was then written with `orient="split"`, without the
    key that `/invocations` wants around it.
    """
    info = _read_example_info(described)
    if info.get("serving_input_path"):
        return content
    if (info.get("type"), info.get("pandas_orient")) == ("dataframe", "split"):
        return b'{"dataframe_split": ' + content + b"}"
    return None


def _read_example_info(described: dict[str, Any]) -> dict[str, Any]:
    info = described.get("saved_input_example_info") or {}
    if not isinstance(info, dict):
        raise InvalidRequest("`saved_input_example_info` in the model's MLmodel file is not a mapping")
    return info
