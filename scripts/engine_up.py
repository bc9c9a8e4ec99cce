"""An engine with base images, for whoever asks: see scripts/get-engine."""

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.base_images import ensure_base_images
from scripts.engine import Client, EngineError, ensure_engine, stop_engine


def main() -> int:
    options = sys.argv[1:]
    if options not in ([], ["--stop"]):
        print("usage: scripts/get-engine [--stop]", file=sys.stderr)
        return 2
    try:
        client = Client.from_environment()
        with lock_machine():
            if options:
                stop_engine(client)
                return 0
            ensure_engine(client)
            ensure_base_images(client)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(client.address)
    return 0


@contextmanager
def lock_machine() -> Iterator[None]:
    """Test workers and other checkouts may ask at the same moment, and the engine is one for all."""
    path = Path(tempfile.gettempdir()) / f"switchyard-engine-{os.geteuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
