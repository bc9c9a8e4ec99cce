"""Every benchmark in turn, or those that are named: `python -m bench switching router`.

Each in a process of its own, so that none measures what another has left behind.
"""

import argparse
import subprocess
import sys

from bench.figures import say
from scripts.service_commands import ROOT

NAMES = (
    "switching",
    "lossless",
    "rollouts",
    "breach",
    "endpoints",
    "overhead",
    "router",
    "socket_proxy",
    "serving",
    "docker_roll",
    "judge",
    "demo",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    failed = [name for name in names if not run_benchmark(name)]
    if failed:
        say(f"broke: {', '.join(failed)}")
    return 1 if failed else 0


def run_benchmark(name: str) -> bool:
    return subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
