"""Settings of trainers and servers, read from the environment."""

from pathlib import Path

import pytest
from pydantic import Field

from modelkit.settings import RunSettings, ServeSettings, SettingsError, TrainingSettings, read_settings


class ForestSettings(TrainingSettings):
    n_estimators: int = Field(default=200, ge=1)
    max_depth: int | None = Field(default=None, ge=1)
    bootstrap: bool = True


CONTRACT = {"SERVE_MODEL_URI": "models:/DiabetesRF/3", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9010"}


def test_text_becomes_what_the_field_says() -> None:
    environ = {
        "N_ESTIMATORS": "50",
        "MAX_DEPTH": "8",
        "BOOTSTRAP": "False",
        "TEST_SIZE": "0.25",
        "DATASET_PATH": "data/rows.csv",
        "TARGET_COLUMN": "price",
    }
    settings = read_settings(ForestSettings, environ)
    assert settings == ForestSettings(
        n_estimators=50,
        max_depth=8,
        bootstrap=False,
        test_size=0.25,
        dataset_path=Path("data/rows.csv"),
        target_column="price",
    )


def test_what_is_not_set_has_its_default() -> None:
    assert read_settings(ForestSettings, {"HOME": "/"}) == ForestSettings()


@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_empty_variable_counts_as_unset(nothing: str) -> None:
    assert read_settings(ForestSettings, {"MAX_DEPTH": nothing, "N_ESTIMATORS": nothing}) == ForestSettings()


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("N_ESTIMATORS", "many", "integer"),
        ("N_ESTIMATORS", "1.5", "integer"),
        ("N_ESTIMATORS", "0", "greater than or equal to 1"),
        ("MAX_DEPTH", "-1", "greater than or equal to 1"),
        ("BOOTSTRAP", "perhaps", "boolean"),
        ("TEST_SIZE", "1", "less than 1"),
        ("TEST_SIZE", "nan", "finite"),
        ("RANDOM_STATE", "4294967296", "less than 4294967296"),
    ],
)
def test_an_error_names_the_variable_its_value_and_what_is_wrong(
    variable: str, value: str, reason: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}='{value}': .*{reason}"):
        read_settings(ForestSettings, {variable: value})


def test_every_wrong_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"TEST_SIZE='a'.*; N_ESTIMATORS='b'"):
        read_settings(ForestSettings, {"N_ESTIMATORS": "b", "TEST_SIZE": "a"})


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings(ForestSettings, {"N_ESTIMATORS": "9" * 100_000 + "x"})
    assert len(str(raised.value)) < 300


def test_a_training_needs_to_know_its_mlflow_server() -> None:
    with pytest.raises(SettingsError, match=r"^MLFLOW_TRACKING_URI is not set$"):
        read_settings(RunSettings, {})


def test_a_server_needs_to_know_its_model() -> None:
    with pytest.raises(SettingsError, match=r"^SERVE_MODEL_URI is not set$"):
        read_settings(ServeSettings, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9010"})


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_server_refuses_what_is_no_port(port: str) -> None:
    with pytest.raises(SettingsError, match=f"^SERVE_PORT='{port}': "):
        read_settings(ServeSettings, {**CONTRACT, "SERVE_PORT": port})


def test_a_server_listens_on_8080_unless_told() -> None:
    assert read_settings(ServeSettings, CONTRACT).serve_port == 8080
