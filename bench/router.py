"""What the router itself costs: memory, how fast it says what is serving, how soon a standby leads."""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import psutil

from bench.figures import percentile, print_heading, print_table, say, tell_milliseconds, tell_seconds
from bench.plain import PlainConnection, make_request
from bench.stage import TINY_MODEL, open_stage, warm_two
from tests.services.ports import find_free_port
from tests.services.standby import stands_by
from tests.services.yard import PLAIN, Yard

RATE = 200.0
LOOK_SECONDS = 0.01
LIMIT_SECONDS = 60.0  # for a takeover, of which 15 are wanted
MEBIBYTE = 1024 * 1024


class StatusAsker:
    """An open loop: every request has its moment, and its time runs from then, late or not."""

    def __init__(self, yard: Yard) -> None:
        self._url = yard.router_url
        self._request = make_request(yard.router_url, "GET", "/status")
        self._idle: list[PlainConnection] = []
        self.seconds: list[float] = []

    async def ask_until(self, ended: Callable[[], bool]) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            number = 0
            while not ended():
                due = began + number / RATE
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._ask(due))
                number += 1
        for connection in self._idle:
            connection.close()

    async def _ask(self, due: float) -> None:
        connection = self._idle.pop() if self._idle else PlainConnection(self._url)
        answer = await connection.send(self._request)
        self.seconds.append(time.monotonic() - due)
        self._idle.append(connection)
        if answer.status != 200:
            raise RuntimeError(f"/status answered {answer.status}")


async def ask_while(yard: Yard, work: Callable[[], Awaitable[None]]) -> list[float]:
    asker = StatusAsker(yard)
    working = asyncio.ensure_future(work())
    await asker.ask_until(working.done)
    await working
    return asker.seconds


async def roll_many(yard: Yard, times: int) -> None:
    async with httpx.AsyncClient(base_url=yard.router_url, timeout=120, trust_env=False) as client:
        for number in range(times):
            body = {"name": TINY_MODEL, "ref": 1 + number % 2}
            answer = await client.post("/admin/roll", json=body)
            if answer.status_code != 200:
                raise RuntimeError(f"a rollout was answered {answer.status_code}: {answer.text}")


def take_over(yard: Yard) -> float:
    """Seconds from the kill of the router that leads to the first answer of the one that stood by."""
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    standby = yard.make_router(ROUTER_PORT=str(port))
    standby.start(lambda: stands_by(url))
    yard.router.kill()
    began = time.monotonic()
    while httpx.get(f"{url}/status", **PLAIN).status_code != 200:
        if time.monotonic() - began > LIMIT_SECONDS:
            raise RuntimeError(f"the standby does not lead {LIMIT_SECONDS:g} s later:\n{standby.log_tail()}")
        time.sleep(LOOK_SECONDS)
    took = time.monotonic() - began
    standby.stop()
    yard.start_router()
    return took


def resident(yard: Yard) -> float:
    memory: int = psutil.Process(yard.router.pid).memory_info().rss
    return memory / MEBIBYTE


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--idle-seconds", type=float, default=30.0)
    given = parser.parse_args()
    print_heading("router: memory, GET /status at 200 requests/s, and a standby's takeover")
    with open_stage() as yard:
        warm_two(yard)
        before = resident(yard)
        say("asking while idle")
        idle = asyncio.run(ask_while(yard, lambda: asyncio.sleep(given.idle_seconds)))
        asked = resident(yard)
        say(f"{given.rollouts} rollouts, one after another")
        asyncio.run(roll_many(yard, given.rollouts))
        after = resident(yard)
        say("asking while rolling")
        rolling = asyncio.run(ask_while(yard, lambda: roll_many(yard, max(1, given.rollouts // 4))))
        last = resident(yard)
        say("killing it beside a standby")
        gaps = [take_over(yard) for _ in range(given.kills)]
    print_table(
        ("GET /status", "requests", "p50", "p99", "least", "most"),
        [
            ["while idle", len(idle), *tell_milliseconds(idle)],
            ["while rolling", len(rolling), *tell_milliseconds(rolling)],
        ],
    )
    print()
    print_table(
        ("resident after", "2 rollouts", "asking", f"{given.rollouts} rollouts more", "asking and rolling"),
        [["router", *(f"{size:.0f} MiB" for size in (before, asked, after, last))]],
    )
    print()
    print_table((f"{given.kills} kills", "until the standby leads"), [["SIGKILL", tell_seconds(gaps)]])
    quick, small = percentile(idle, 99) < 0.010, max(after, last) < 150
    print(f"\nwanted: p99 under 10 ms: {'reached' if quick else 'MISSED'} (while idle);", end=" ")
    print(f"under 150 MiB: {'reached' if small else 'MISSED'};", end=" ")
    print(f"a takeover within 15 s: {'reached' if max(gaps) <= 15 else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
