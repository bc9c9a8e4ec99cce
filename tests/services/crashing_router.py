"""The real router, except that it kills itself at a point that a file names, as soon as the file is there.

The file CRASH_POINT holds `KIND:PHASE:WHEN`, e.g. `rollout:shifting:after`: SIGKILL before (nothing of it is
stored) or after (all of it is stored, nothing of what follows is done) the write that brings a record of this
kind into this phase. Or it holds `traffic`: right after a switch of traffic, before any record of it; or
`routes`: right after endpoints were made or removed at the proxy.

Within a phase of a rollout there are also `rollout:at-10:WHEN`, where its candidate is to have 10%, and
`rollout:FLAG:WHEN`, where one of FLAGS is set.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from router.api.app import make_app
from router.core.clock import SystemClock
from router.core.models import Record, Rollout
from router.core.traffic import Traffic
from router.proxies.base import Proxy
from router.settings import Settings
from router.stores.base import Change, Claim, Insert, Store
from router.wiring import build_drivers, build_engine

TRAFFIC = "traffic"
ROUTES = "routes"
FLAGS = ("paused", "promote_requested", "preempted")


def read_crash_point() -> str:
    try:
        return Path(os.environ["CRASH_POINT"]).read_text()
    except FileNotFoundError:
        return ""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def describe_entries(change: Change) -> set[str]:
    """`KIND:PHASE` if the change brings a record into a phase; and what else it brings a rollout to."""
    if isinstance(change, Claim):
        return set()
    after: Record = change.record if isinstance(change, Insert) else change.after
    before: Record | None = None if isinstance(change, Insert) else change.before
    kind, entered = type(after).__name__.lower(), set()
    reached = getattr(after, "phase", None)
    if reached != getattr(before, "phase", None):
        entered.add(f"{kind}:{reached}")
    if isinstance(after, Rollout) and isinstance(before, Rollout):
        entered |= {f"{kind}:{flag}" for flag in FLAGS if getattr(after, flag) and not getattr(before, flag)}
        entered |= {f"{kind}:at-{step.weight:g}" for step in after.steps[len(before.steps) :]}
    return entered


def let_store_crash(store: Store) -> None:
    apply = store.apply

    async def apply_or_die(*changes: Change) -> None:
        entered, _, when = read_crash_point().rpartition(":")
        fatal = bool(entered) and any(entered in describe_entries(change) for change in changes)
        if fatal and when == "before":
            die()
        await apply(*changes)
        if fatal:
            die()

    store.apply = apply_or_die  # type: ignore[method-assign]


def let_proxy_crash(proxy: Proxy) -> None:
    set_traffic, ensure, remove = proxy.set_traffic, proxy.ensure_endpoints, proxy.remove_endpoints

    async def set_or_die(endpoint: str, traffic: Traffic) -> None:
        await set_traffic(endpoint, traffic)
        if read_crash_point() == TRAFFIC:
            die()

    async def ensure_or_die(names: Sequence[str]) -> None:
        await ensure(names)
        if read_crash_point() == ROUTES:
            die()

    async def remove_or_die(names: Sequence[str]) -> None:
        await remove(names)
        if read_crash_point() == ROUTES:
            die()

    proxy.set_traffic = set_or_die  # type: ignore[method-assign]
    proxy.ensure_endpoints = ensure_or_die  # type: ignore[method-assign]
    proxy.remove_endpoints = remove_or_die  # type: ignore[method-assign]


def main() -> None:
    settings, clock = Settings.load(), SystemClock()
    drivers = build_drivers(settings, clock)
    let_store_crash(drivers.store)
    let_proxy_crash(drivers.proxy)
    app = make_app(build_engine(settings, drivers, clock))
    uvicorn.run(
        app,
        host=settings.router_host,
        port=settings.router_port,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
