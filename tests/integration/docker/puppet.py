"""What the containers of the tests run: prints, then waits for signals, or ends with a given code."""

import os
import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR1, lambda *_: print("poked", flush=True))
for _ in range(int(os.environ.get("MEGABYTES", "0"))):
    sys.stdout.write(("x" * 1023 + "\n") * 1024)
for number in range(int(os.environ.get("LINES", "0"))):
    print(f"line {number}")
if "EXIT_CODE" in os.environ:
    sys.exit(int(os.environ["EXIT_CODE"]))
print("waiting", flush=True)
while True:
    signal.pause()
