"""How long users wait for a switch: from the command to the first answer of the other, warm server.

A prober asks through Caddy over and over. Time runs from the moment the POST is sent, so it holds everything:
the recorded intent, both pings, the slot directory with its fsyncs, the prober's own request.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass, field
from statistics import median

from bench.figures import percentile, print_heading, print_table, tell_milliseconds
from bench.plain import PlainConnection, make_request
from bench.stage import open_stage, warm_two
from tests.services.yard import Yard

BREATH = 0.001  # between probes: on two cores a prober without one would slow down what it measures
PAUSE = 0.25  # between toggles: the alias has moved, and the records have settled


@dataclass
class Times:
    """Seconds since the POST was sent, one for each toggle."""

    first_answer: list[float] = field(default_factory=list)
    commanded: list[float] = field(default_factory=list)  # the POST's own answer


class Prober:
    def __init__(self, yard: Yard) -> None:
        self._connection = PlainConnection(yard.public_url)
        self._request = make_request(yard.public_url, "GET", "/ping")

    async def ask(self) -> str:
        """The server that answered."""
        answer = await self._connection.send(self._request)
        if answer.status != 200:
            raise RuntimeError(f"a prober was answered {answer.status}")
        return answer.served_by

    async def await_other(self, than: str) -> float:
        """When another server's answer came."""
        while True:
            if await self.ask() != than:
                return time.monotonic()
            await asyncio.sleep(BREATH)

    def close(self) -> None:
        self._connection.close()


async def measure(yard: Yard, toggles: int) -> Times:
    times = Times()
    prober, admin = Prober(yard), PlainConnection(yard.router_url)
    command = make_request(yard.router_url, "POST", "/admin/rollback", b"{}")
    for _ in range(toggles):
        before = await prober.ask()
        changed = asyncio.create_task(prober.await_other(before))
        await asyncio.sleep(0.01)  # the prober is in full swing
        began = time.monotonic()
        answer = await admin.send(command)
        times.commanded.append(time.monotonic() - began)
        if answer.status != 200:
            raise RuntimeError(f"a rollback was answered {answer.status}")
        times.first_answer.append(await changed - began)
        await asyncio.sleep(PAUSE)
    prober.close()
    admin.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--toggles", type=int, default=150)
    toggles = parser.parse_args().toggles
    print_heading("switching: from the command to the other server's first answer")
    with open_stage() as yard:
        warm_two(yard)
        times = asyncio.run(measure(yard, toggles))
    print_table(
        (f"{toggles} toggles", "p50", "p99", "least", "most"),
        [
            ["first answer of the other server", *tell_milliseconds(times.first_answer)],
            ["answer to the command", *tell_milliseconds(times.commanded)],
        ],
    )
    within = percentile(times.first_answer, 99) < 0.150 and median(times.first_answer) < 0.050
    print(f"\nwanted: p50 under 50 ms, p99 under 150 ms: {'reached' if within else 'MISSED'}", flush=True)


if __name__ == "__main__":
    main()
