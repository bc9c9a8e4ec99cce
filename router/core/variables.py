"""Environment variables of trainers: which may be set, how values become text, and how a request's
parameters are laid over a spec's `env`.

Some names are the router's own or change what a process executes, so nobody else may set them.
"""

import json
import re
from collections.abc import Mapping

from router.core.errors import InvalidRequest

EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT"
MODEL_NAME_VARIABLE = "REGISTERED_MODEL_NAME"

RESERVED_NAMES = frozenset(
    {
        *("MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI", "PATH"),
        # What shells and interpreters execute, or where they look for what they do.
        *("HOME", "XDG_CONFIG_HOME", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "IFS", "PS4", "GCONV_PATH"),
        *("PERL5OPT", "RUBYOPT", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS"),
        # By whom the trainer's traffic goes, and whom it believes: its login at MLflow goes with it.
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    }
)
# git, which MLflow calls, takes whole commands from its variables.
RESERVED_PREFIXES = (
    *("MLFLOW_TRACKING_", "SERVE_", "SWITCHYARD_"),
    *("LD_", "DYLD_", "PYTHON", "GIT_", "OPENSSL_"),
)
MAX_PARAMETERS = 1000

# Linux passes on no variable of more than 128 KiB, name and all, and 2 MiB of them in all.
MAX_VALUE_BYTES = 100_000
MAX_ENVIRONMENT_BYTES = 1_000_000
BYTES_BESIDE_TEXT = 10  # of each variable: `=`, NUL, and a pointer
MAX_NAME_LENGTH = 256

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_MODEL_NAME = re.compile(r"(?!\.{1,2}\Z)[^/:%\\\x00-\x1f\x7f]{1,255}")

Parameter = str | int | float | bool | None


def find_name_problem(name: str) -> str | None:
    """Why a variable of this name may not be set, in words; None if it may."""
    if not name:
        return "the name of a variable may not be empty"
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        return "a variable's name has letters, digits, `_`, `.` and `-`, and begins with a letter or `_`"
    if name.upper() in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
        return "this variable is reserved for the router and may not be set"
    return None


def find_value_problem(name: str, value: str) -> str | None:
    """Why this variable may not have this value, in words that don't repeat it; None if it may."""
    if any(character in value for character in "\n\r\0"):
        return "a value may not contain newlines or NUL"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "the value is not valid Unicode"
    if size > MAX_VALUE_BYTES:
        return f"the value is longer than {MAX_VALUE_BYTES} bytes"
    if name == MODEL_NAME_VARIABLE and value and not _MODEL_NAME.fullmatch(value):
        return "a model's name may not contain `/`, `:`, `%`, `\\` or control characters"
    return None


def find_problem(name: str, value: str) -> str | None:
    return find_name_problem(name) or find_value_problem(name, value)


def text_of(value: object) -> str | None:
    """A value as a variable's text: `true` and `false` for booleans, JSON for numbers, lists and maps.

    None stays None: the variable is not set. Raises ValueError for what JSON cannot say.
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def merge_parameters(
    env: Mapping[str, str], parameters: Mapping[str, object] | None
) -> tuple[dict[str, str], dict[str, str | None]]:
    """The environment with a request's parameters laid over it, and the parameters as applied.

    A parameter of null takes the variable away. Raises InvalidRequest, naming every wrong field's path.
    """
    if parameters is not None and len(parameters) > MAX_PARAMETERS:
        raise InvalidRequest(
            f"parameters: there are {len(parameters)}, more than {MAX_PARAMETERS}", hint="nothing was started"
        )
    applied: dict[str, str | None] = {}
    problems = []
    for name, value in (parameters or {}).items():
        text, problem = _read_parameter(name, value)
        applied[name] = text
        if problem is not None:
            problems.append(f"parameters.{printable(name)}: {problem}")
    if problems:
        raise InvalidRequest("; ".join(problems), hint="nothing was started")
    merged = {name: text for name, text in {**env, **applied}.items() if text is not None}
    size = sum(len(f"{name}{text}".encode()) + BYTES_BESIDE_TEXT for name, text in merged.items())
    if size > MAX_ENVIRONMENT_BYTES:
        raise InvalidRequest(
            f"parameters: with the spec's `env` they make {size} bytes of environment, more than"
            f" {MAX_ENVIRONMENT_BYTES}",
            hint="nothing was started",
        )
    return merged, applied


def _read_parameter(name: str, value: object) -> tuple[str | None, str | None]:
    problem = find_name_problem(name)
    if problem is not None or value is None:
        return None, problem
    if not isinstance(value, str | int | float):
        return None, "must be text, a number, true, false or null"
    try:
        text = text_of(value)
    except ValueError:
        return None, "must be a finite number that can be written out"
    return text, find_value_problem(name, text or "")


def printable(name: str) -> str:
    """For messages: a name that may hold anything, cut short and with its control characters escaped."""
    short = name[:80]
    return (short if short.isprintable() else short.encode("unicode_escape").decode()) or "(empty)"


def experiment_of(env: Mapping[str, str], default: str) -> str:
    return env.get(EXPERIMENT_VARIABLE) or default


def registered_model_of(env: Mapping[str, str]) -> str | None:
    """The name under which the trainer's version must appear, if anybody said."""
    return env.get(MODEL_NAME_VARIABLE) or None
