"""The machine that the router and its workloads share."""

import psutil

from router.runtimes.base import Memory


def read_machine_memory() -> Memory:
    found = psutil.virtual_memory()
    return Memory(free=found.available, used=found.total - found.available)
