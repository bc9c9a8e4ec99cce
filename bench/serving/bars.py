"""What the server has to reach, judged on one run's figures."""

from collections.abc import Iterator, Mapping

from bench.serving.measuring import LOADS, Measured

Results = Mapping[tuple[str, str], Measured]  # by model and server

MLFLOW, OURS, FLOOR = "mlflow models serve", "ours", "floor"
PEERS = ("MLServer", "BentoML")
ONE_ROW = [load for load in LOADS if load[0] == 1]
WANTED_RATIOS = {("forest", 1): 40, ("forest", 8): 80, ("logistic", 1): 12, ("logistic", 8): 18}
COMPILED = ("forest", "logistic")
NATIVE = ("own_forest", "own_logistic")


def judge(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """What, wanted, found, verdict."""
    for (model, clients), wanted in WANTED_RATIOS.items():
        found = compare(results, model, MLFLOW, (1, clients))
        yield tell(f"{model}, {clients} at once, to MLflow", found, wanted)
    for peer in PEERS:
        where = {
            f"{model}, {rows} rows, {clients} at once": compare(results, model, peer, (rows, clients))
            for model in COMPILED
            for rows, clients in LOADS
        }
        least = min(where, key=where.__getitem__)
        yield tell(f"everywhere, to {peer}: least at {least}", where[least], 1)
    share = results["logistic", OURS].rate(1, 64) / results["logistic", FLOOR].rate(1, 64)
    yield "logistic, 64 at once, of the floor", "35%", f"{share:.0%}", tell_verdict(share >= 0.35)
    for model in COMPILED:
        mine, theirs = results[model, OURS], results[model, MLFLOW]
        yield f"{model}, cold start", "under 0.5 s", f"{mine.start:.2f} s", tell_verdict(mine.start < 0.5)
        yield tell(f"{model}, cold start, MLflow's to ours", theirs.start / mine.start, 8)
        fits = tell_verdict(mine.mebibytes < 150)
        yield f"{model}, resident", "under 150 MiB", f"{mine.mebibytes:.0f} MiB", fits
    for model in NATIVE:
        for load in ONE_ROW:
            what = f"{model} (not compiled), {load[1]} at once, to MLflow"
            yield tell(what, compare(results, model, MLFLOW, load), 1.4)


def compare(results: Results, model: str, peer: str, load: tuple[int, int]) -> float:
    """How many times the peer's rate ours is."""
    return results[model, OURS].rate(*load) / results[model, peer].rate(*load)


def tell(what: str, found: float, wanted: float) -> tuple[str, str, str, str]:
    return what, f"{wanted:g}x", f"{found:.3g}x", tell_verdict(found >= wanted)


def tell_verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "MISSED"
