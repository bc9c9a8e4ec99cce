"""The virtual environment of a model folder, made from its own lock, and how its programs are started in it.

Kept in the checkout between runs: made again only when the lock changes.
"""

import hashlib
import subprocess
from pathlib import Path

from filelock import FileLock

from scripts.service_commands import ROOT, service_environment

MODELKIT = ROOT / "model-images" / "modelkit"


def make_model_python(source: Path) -> Path:
    """The interpreter of `source`'s environment, with everything in `source`'s requirements.lock."""
    lock = source / "requirements.lock"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = Path(".local") / "models" / f"{source.name}-{digest}"
    complete = ROOT / folder / "complete"
    (ROOT / folder.parent).mkdir(parents=True, exist_ok=True)
    with FileLock(f"{ROOT / folder}.lock"):
        if not complete.exists():
            script = 'source scripts/lib/index.sh; source scripts/lib/python.sh; make_environment "$1" "$2"'
            subprocess.run(["bash", "-euc", script, "bash", str(folder), str(lock)], cwd=ROOT, check=True)
            complete.touch()
    return ROOT / folder / "bin" / "python"


def model_environment(tracking_url: str, **variables: str) -> dict[str, str]:
    """What a runtime gives a trainer or a server, and nothing of what this process was given."""
    return {
        **service_environment(),
        "MLFLOW_TRACKING_URI": tracking_url,
        "PYTHONPATH": str(MODELKIT),
        **variables,
    }
