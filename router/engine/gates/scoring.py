"""Has scikit-learn's metrics computed in a process of their own, which is killed at its deadline."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import anyio

# -I: neither the working folder nor the environment decides what it imports.
COMMAND = (sys.executable, "-I", str(Path(__file__).with_name("scoring_worker.py")))
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # and none of the router's secrets
SECONDS = 60.0
TOLD = 300  # characters of the last line that a failed process wrote

Scores = dict[str, dict[str, float | None]]


class ScoringFailed(Exception):
    """The metrics could not be computed; the text says why."""


class Scorer:
    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> None:
        self._command = command
        self._seconds = seconds

    async def score(
        self, metrics: Sequence[str], truth: Sequence[Any], predictions: Mapping[str, Sequence[Any]]
    ) -> Scores:
        """By whose predictions they are, then by metric; None is a score that is not finite.

        Raises ScoringFailed. A cancelled call kills the process, too.
        """
        asked = {"metrics": metrics, "truth": truth, "predictions": predictions}
        scores = _read_scores(await self._run(json.dumps(asked).encode()))
        if {who: set(each) for who, each in scores.items()} != {who: set(metrics) for who in predictions}:
            raise ScoringFailed("the process that computes metrics answered something else than was asked")
        return scores

    async def _run(self, content: bytes) -> bytes:
        try:
            # A file, since a pipe breaks under whoever writes to a process that has ended.
            with anyio.fail_after(self._seconds), TemporaryFile() as asked:
                asked.write(content)
                asked.seek(0)
                ended = await anyio.run_process(self._command, stdin=asked, env=ENVIRONMENT, check=False)
        except TimeoutError as error:
            raise ScoringFailed(f"the metrics were not computed within {self._seconds:g} s") from error
        except OSError as error:
            raise ScoringFailed(f"the process that computes metrics cannot be started: {error}") from error
        if ended.returncode != 0:
            told = ended.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:TOLD]
            raise ScoringFailed(f"the process that computes metrics ended with {ended.returncode}: {told}")
        return ended.stdout


def _read_scores(answer: bytes) -> Scores:
    try:
        found = json.loads(answer)
        scores = {
            str(who): {str(metric): None if value is None else float(value) for metric, value in each.items()}
            for who, each in found.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ScoringFailed("the process that computes metrics answered something unreadable") from error
    if not all(value is None or math.isfinite(value) for each in scores.values() for value in each.values()):
        raise ScoringFailed("the process that computes metrics answered something unreadable")
    return scores
