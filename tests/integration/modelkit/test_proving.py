"""What the proof of a compiled model grants: nothing that was not compared, at no cost of a training."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.services.model_environment import MODELKIT, model_environment

PROVE = Path(__file__).parent / "kinds" / "prove.py"
NUMBERS = ["width", "height", "depth"]


@dataclass(frozen=True)
class Found:
    models: dict[str, Any]
    log: str

    def granted(self, model: str, what: str) -> set[str]:
        return {name for name, column in self.models[model]["columns"].items() if column[what]}


@pytest.fixture(scope="module")
def found(model_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """All of them where a booster is installed beside an onnxmltools that does not fit."""
    broken = tmp_path_factory.mktemp("broken")
    (broken / "xgboost.py").touch()
    (broken / "onnxmltools").mkdir()
    (broken / "onnxmltools" / "__init__.py").touch()
    process = subprocess.run(
        [str(model_python), "-W", "ignore", str(PROVE)],
        env=model_environment("", PYTHONPATH=f"{MODELKIT}:{broken}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return Found(json.loads(process.stdout.splitlines()[-1]), process.stderr)


def test_missing_values_are_granted_where_every_combination_of_them_is_answered_alike(found: Found) -> None:
    assert found.granted("gaps", "missing") == set(NUMBERS)
    # Its runtime fails on a row in which all are missing, though each may be missing alone.
    assert found.granted("gaps that are answered alone only", "missing") == set()


def test_unknown_words_are_granted_where_no_odd_word_parts_the_models(found: Found) -> None:
    assert found.granted("words", "unknown") == {"colour"}


@pytest.mark.parametrize(
    "model", ["a gap among the words", "a gap among the numbered words", "words within words"]
)
def test_a_model_that_takes_an_odd_word_for_another_is_compiled_for_the_known_ones_only(
    found: Found, model: str
) -> None:
    column = found.models[model]["columns"]["colour"]
    assert not column["unknown"]
    assert set(column["known"]) == {"red", "green", "blue"}


def test_a_known_word_is_compared_though_no_held_out_row_has_it(found: Found) -> None:
    assert "for known words of 'colour'" in found.models["a known word that no held-out row has"]["reason"]


def test_few_rows_prove_nothing(found: Found) -> None:
    few = found.models["few complete rows"]["reason"]
    assert "10 different held-out rows have no missing value" in few
    assert "19 different held-out rows" in found.models["few different rows"]["reason"]


def test_rows_count_once(found: Found) -> None:
    # Held-out rows, rows made up of them, and one for each of three words.
    assert found.models["numbers"]["rows"] == 60 + 256
    assert found.models["words"]["rows"] == 60 + 256 + 3


def test_columns_of_true_and_false_are_compiled(found: Found) -> None:
    assert found.models["switches"]["columns"]["painted"]["type"] == "boolean"


def test_a_model_is_asked_in_every_way_a_server_asks_it(found: Found) -> None:
    assert "differs by 1 for held-out rows" in found.models["a matrix that is answered otherwise"]["reason"]


def test_a_model_whose_rows_are_not_answered_each_for_itself_is_not_compiled(found: Found) -> None:
    reason = found.models["rows that count on one another"]["reason"]
    assert "for rows together, beside the same alone" in reason


def test_a_model_that_would_take_the_trainer_too_long_is_not_compiled(found: Found) -> None:
    assert "of 954 MiB, 64 are tried at most" in found.models["a large model"]["reason"]
    assert found.models["fine numbers"]["precision"] == "float64"
    assert "float32: not proven" in found.models["fine numbers, late"]["reason"]


def test_whatever_fails_in_the_proof_the_training_goes_on(found: Found) -> None:
    assert "Array(double)" in found.models["cells that are lists"]["reason"]
    assert found.models["gains by a model that fails"] is False
    assert "XGBoost and LightGBM models cannot be compiled\nTraceback" in found.log
    assert "No module named 'onnxmltools.convert'" in found.log
