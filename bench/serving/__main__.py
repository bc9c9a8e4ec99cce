"""Our server beside `mlflow models serve`, MLServer, BentoML and a constant answer, with the same models.

The server has one core, the load another. Through Caddy, which shares both, there is a table of its own.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import print_heading, print_table, say, tell_seconds
from bench.serving import servers
from bench.serving.bars import COMPILED, NATIVE, judge
from bench.serving.measuring import Measured, Plan, compare_proxied, measure, run_server
from bench.serving.servers import Asked, Models, Server
from bench.serving.wrk import Point, get_wrk
from bench.stage import open_mlflow
from router.core.traffic import DEFAULT_ENDPOINT, Traffic
from router.proxies.caddy_config import build_config, read_switch_from, render_config
from router.proxies.slot_directory import SlotDirectories
from tests.services.caddy import run_caddy, short_directory
from tests.services.model_environment import make_model_python, model_environment
from tests.services.proxied import make_layout, make_upstream

Make = Callable[[str, Models], Server]
LINE_UP: dict[str, tuple[Make, ...]] = {
    **dict.fromkeys(COMPILED, (servers.mlflow, servers.mlserver, servers.bentoml, servers.ours)),
    **dict.fromkeys((*NATIVE, "pyfunc"), (servers.mlflow, servers.ours)),
}
LINE_UP["logistic"] += (servers.floor,)
FULL, SHORT = Plan(seconds=6, starts=5), Plan(seconds=2, starts=2)


def train(models: Models) -> None:
    say("training the models")
    program = Path(__file__).with_name("models.py")
    command = [str(make_model_python(servers.SOURCE)), str(program), str(models.folder)]
    environment = model_environment(models.mlflow_url)
    trained = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if trained.returncode != 0:
        raise RuntimeError(f"the training failed:\n{trained.stderr}")
    for model in LINE_UP:
        if (models.folder / model / "compiled").exists() != (model in COMPILED):
            raise RuntimeError(f"{model} is not what is to be measured:\n{trained.stderr}")


def read_asked(models: Models, model: str) -> Asked:
    return Asked(**json.loads((models.folder / f"{model}.json").read_text()))


def measure_all(models: Models, plan: Plan) -> dict[tuple[str, str], Measured]:
    results = {}
    for model, line_up in LINE_UP.items():
        for make in line_up:
            server = make(model, models)
            say(f"{model}: {server.name}")
            results[model, server.name] = measure(server, read_asked(models, model), models.folder, plan)
    return results


@contextmanager
def open_proxy(address: str) -> Iterator[str]:
    """Caddy as the router sets it up, with this server's address in the slot; the proxy's own."""
    with short_directory() as directory:
        layout, config = make_layout(directory), directory / "caddy.json"
        slots = SlotDirectories(directory / "slots", layout.idle_address)
        slots.create([DEFAULT_ENDPOINT])
        slots.write(DEFAULT_ENDPOINT, Traffic(active=make_upstream(address)))
        switch = read_switch_from(slots.root, DEFAULT_ENDPOINT)
        config.write_bytes(render_config(build_config(layout, {DEFAULT_ENDPOINT: switch})))
        with run_caddy(config, layout.admin_socket, directory / "caddy"):
            yield layout.public_listen


def measure_proxied(models: Models, plan: Plan) -> Iterator[list[str]]:
    for model in COMPILED:
        server = servers.ours(model, models)
        address = server.url.split("/")[2]
        with (
            run_server(server, read_asked(models, model), models.folder) as running,
            open_proxy(address) as proxy,
        ):
            url = server.url.replace(address, proxy)
            for clients, direct, proxied in compare_proxied(running, url, plan, (1, 8, 64)):
                share = f"{proxied.rate / direct.rate:.0%}"
                yield [model, str(clients), *map(tell_point, (direct, proxied)), share]


def tell_point(point: Point) -> str:
    return f"{tell_rate(point)}/s, {point.p50 * 1000:.2f} / {point.p99 * 1000:.2f} ms"


def tell_rate(point: Point) -> str:
    failed = f" ({point.failed} failed)" if point.failed else ""
    return (f"{point.rate:,.0f}" if point.rate >= 100 else f"{point.rate:.1f}") + failed


def print_results(results: dict[tuple[str, str], Measured]) -> None:
    rows = [
        [
            model,
            server,
            " / ".join(tell_rate(point) for (count, _), point in found.points.items() if count == 1),
            f"{found.points[1, 8].p99 * 1000:.1f} ms",
            " / ".join(tell_rate(point) for (count, _), point in found.points.items() if count != 1),
            tell_seconds(found.starts),
            f"{found.mebibytes:.0f} MiB",
        ]
        for (model, server), found in results.items()
    ]
    one = "one row, 1 / 8 / 64 at once"
    many = "1,000 rows, 1 / 8 at once"
    print_table(("model", "server", one, "p99 at 8", many, "cold start", "resident"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--short", action="store_true", help="two seconds for each point")
    plan = SHORT if parser.parse_args().short else FULL
    get_wrk()
    with open_mlflow() as mlflow_url, TemporaryDirectory(prefix="sw-bench-") as folder:
        models = Models(Path(folder), mlflow_url)
        train(models)
        print_heading("serving: requests a second, each server on one core")
        results = measure_all(models, plan)
        print_results(results)
        print()
        print_table(("ours", "wanted", "found", ""), list(judge(results)))
        print_heading("serving: through Caddy")
        proxied = list(measure_proxied(models, plan))
    columns = ("at once", "direct: rate, p50 / p99", "through Caddy: rate, p50 / p99", "of the rate")
    print_table(("model", *columns), proxied)


if __name__ == "__main__":
    main()
