"""Every environment variable that a trainer or a server reads, with its type, its default and its bounds.

Settings come as text from a spec, a caller's parameters or a shell. They are checked here, before any work
starts, so that a wrong one costs a line that names the variable and not a training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

_LONGEST_ECHO = 80  # characters of a wrong value that an error repeats

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class SettingsError(Exception):
    """An environment variable is missing or has a value that cannot be used."""


class EnvironmentSettings(BaseModel):
    """A field `n_estimators` is read from `N_ESTIMATORS`. An empty variable counts as unset."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Settings = TypeVar("Settings", bound=EnvironmentSettings)


class TrainingSettings(EnvironmentSettings):
    """What every training can be told. A trainer adds its hyperparameters by a subclass of its own.

    All of these are logged as parameters of the run.
    """

    dataset_path: Path | None = None
    target_column: Text = "target"
    test_size: float = Field(default=0.2, gt=0, lt=1)
    random_state: int = Field(default=42, ge=0, lt=2**32)
    held_out_rows: int = Field(default=1000, ge=0, le=1000)  # kept with the model


class RunSettings(EnvironmentSettings):
    """Where a training is recorded. Without `MLFLOW_RUN_ID` it makes a run of its own."""

    mlflow_tracking_uri: Text
    mlflow_run_id: Text | None = None
    mlflow_experiment: Text | None = None
    registered_model_name: Text | None = None


class ServeSettings(EnvironmentSettings):
    """The server contract. From `model_name` on: for information only."""

    serve_model_uri: Text
    # Needed by a model that is fetched; one on the local disk runs without MLflow.
    mlflow_tracking_uri: Text | None = None
    mlflow_server_host: Text | None = None  # another name of the same
    model_served: Literal["local", "mlflow"] | None = None  # decided by SERVE_MODEL_URI unless set
    mlflow_tracking_username: Text | None = None
    mlflow_tracking_password: Text | None = None
    mlflow_tracking_token: Text | None = None
    # Servers of one host share it. Without it, what is fetched goes when the server goes.
    serve_cache_dir: Path | None = None
    serve_max_body_bytes: int = Field(default=64 * 2**20, ge=1)
    serve_max_waiting: int = Field(default=128, ge=1)
    serve_threads: int = Field(default=4, ge=1, le=64)
    # Processes; each has the model for itself.
    serve_workers: int = Field(default=1, ge=1, le=256)
    # A container is reached from outside its own network namespace; who runs servers on a shared
    # host sets 127.0.0.1.
    serve_host: Text = "0.0.0.0"  # noqa: S104
    serve_port: int = Field(default=8080, ge=1, le=65535)
    # MLflow's own variable and default, in seconds.
    mlflow_scoring_server_request_timeout: float = Field(default=60, gt=0)
    model_name: Text | None = None
    model_version: Text | None = None
    mlflow_run_id: Text | None = None
    server_id: Text | None = None


def read_settings(kind: type[Settings], environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError that names every variable at fault."""
    given = {
        name: environ[name.upper()] for name in kind.model_fields if environ.get(name.upper(), "").strip()
    }
    try:
        return kind.model_validate_strings(given)
    except ValidationError as error:
        raise SettingsError("; ".join(_describe_fault(fault, given) for fault in error.errors())) from error


def _describe_fault(fault: ErrorDetails, given: Mapping[str, str]) -> str:
    field = str(fault["loc"][0])
    variable = field.upper()
    if fault["type"] == "missing":
        return f"{variable} is not set"
    value = given[field]
    shown = value if len(value) <= _LONGEST_ECHO else value[:_LONGEST_ECHO] + "..."
    return f"{variable}={shown!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
