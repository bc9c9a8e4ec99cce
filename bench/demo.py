"""How long `make demo` takes in a clean checkout, with packages cached, and when it is asked for again."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.figures import print_heading, print_table, say
from scripts.service_commands import ROOT
from tests.services.ports import find_free_port

PORTS = ("ROUTER_PORT", "PROXY_PUBLIC_PORT", "PROXY_IDLE_PORT", "MLFLOW_SERVICE_PORT")
WANTED = {"clean checkout": 180, "again": 30}


def main() -> None:
    print_heading("demo: from `make demo` to a prediction")
    environment = os.environ | {name: str(find_free_port()) for name in PORTS}
    with tempfile.TemporaryDirectory(prefix="sw-demo-") as folder:
        checkout = Path(folder) / "switchyard"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        try:
            seconds = {which: run_demo(checkout, environment, which) for which in WANTED}
        finally:
            subprocess.run(["make", "down"], cwd=checkout, env=environment, check=True)
    rows = [
        [f"`make demo`, {which}", f"{taken:.0f} s", f"under {WANTED[which]} s"]
        for which, taken in seconds.items()
    ]
    print_table(("", "took", "wanted"), rows)


def run_demo(checkout: Path, environment: dict[str, str], which: str) -> float:
    say(f"make demo, {which}")
    began = time.monotonic()
    subprocess.run(["make", "demo"], cwd=checkout, env=environment, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
