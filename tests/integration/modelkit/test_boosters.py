"""XGBoost and LightGBM models are compiled, too, where the model's requirements bring onnxmltools."""

import json
import subprocess

from scripts.service_commands import ROOT
from tests.services.model_environment import make_model_python, model_environment

BOOSTERS = ROOT / "tests" / "sources" / "boosters"


def test_boosters_are_compiled_and_proven() -> None:
    process = subprocess.run(
        [str(make_model_python(BOOSTERS)), "-W", "ignore", str(BOOSTERS / "compile.py")],
        env=model_environment(""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout.splitlines()[-1])
    assert len(found) == 7
    assert all(verdict["difference"] <= 1e-5 for verdict in found.values())
    assert found["xgboost"]["missing"]
    assert found["lightgbm"]["missing"]
