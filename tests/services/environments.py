"""Virtual environments that the yards of a checkout share, so that a model's packages are installed once."""

from pathlib import Path

from scripts.service_commands import ROOT

SHARED = ROOT / ".local" / "process-environments"


def share_environments(state: Path) -> None:
    """For a router that is not started yet. With the lock beside them: each clears what nobody makes."""
    SHARED.mkdir(parents=True, exist_ok=True)
    runtime = state / "process"
    runtime.mkdir(parents=True, exist_ok=True)
    for shared in (SHARED, SHARED.with_suffix(".lock")):
        (runtime / "environments").with_suffix(shared.suffix).symlink_to(shared)
