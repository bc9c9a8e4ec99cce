"""The real router, except that it kills itself at a chosen write to its store.

`CRASH_AT=KIND:PHASE:WHEN`, e.g. `rollout:shifting:after`: SIGKILL before (nothing of it is stored) or after
(all of it is stored, nothing of what follows is done) the write that brings a record of this kind into this
phase. `WHEN` may also be `traffic`: right after the first switch of traffic, before any record of it.
"""

import os
import signal

import uvicorn

from router.api.app import make_app
from router.core.clock import SystemClock
from router.core.models import Record
from router.core.traffic import Traffic
from router.proxies.base import Proxy
from router.settings import Settings
from router.stores.base import Change, Claim, Insert, Store
from router.wiring import build_drivers, build_engine


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def make_crashing_store(store: Store, kind: str, phase: str, when: str) -> Store:
    apply = store.apply

    def enters(change: Change) -> bool:
        if isinstance(change, Claim):
            return False
        after: Record = change.record if isinstance(change, Insert) else change.after
        before = None if isinstance(change, Insert) else getattr(change.before, "phase", None)
        reached = getattr(after, "phase", None)
        return type(after).__name__.lower() == kind and reached == phase and before != reached

    async def apply_and_die(*changes: Change) -> None:
        fatal = any(enters(change) for change in changes)
        if fatal and when == "before":
            die()
        await apply(*changes)
        if fatal and when == "after":
            die()

    store.apply = apply_and_die  # type: ignore[method-assign]
    return store


def make_crashing_proxy(proxy: Proxy) -> Proxy:
    set_traffic = proxy.set_traffic

    async def set_and_die(endpoint: str, traffic: Traffic) -> None:
        await set_traffic(endpoint, traffic)
        die()

    proxy.set_traffic = set_and_die  # type: ignore[method-assign]
    return proxy


def main() -> None:
    kind, phase, when = os.environ["CRASH_AT"].split(":")
    settings, clock = Settings.load(), SystemClock()
    drivers = build_drivers(settings, clock)
    if when == "traffic":
        drivers.proxy = make_crashing_proxy(drivers.proxy)
    else:
        drivers.store = make_crashing_store(drivers.store, kind, phase, when)
    app = make_app(build_engine(settings, drivers, clock))
    uvicorn.run(app, host=settings.router_host, port=settings.router_port, log_level="warning")


if __name__ == "__main__":
    main()
