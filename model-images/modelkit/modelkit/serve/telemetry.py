"""What a server counts, in Prometheus' text format.

A few lists instead of the client library: its locks and labels would cost a third of a compiled
prediction, and everything here happens on the event loop's one thread.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Telemetry:
    def __init__(self, labels: dict[str, str]) -> None:
        """`labels` say which model this is."""
        self.answers: Counter[tuple[str, int]] = Counter()  # by lane and status
        self.waiting = 0
        self._labels = labels
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, lane: str, status: int, seconds: float) -> None:
        self.answers[lane, status] += 1
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds += seconds

    def render(self) -> str:
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterable[str]:
        yield "# TYPE modelkit_model_info gauge"
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in self._labels.items())
        yield f"modelkit_model_info{{{labels}}} 1"
        yield "# HELP modelkit_requests_total Requests to /invocations, by who answered and the status."
        yield "# TYPE modelkit_requests_total counter"
        for (lane, status), count in sorted(self.answers.items()):
            yield f'modelkit_requests_total{{lane="{lane}",status="{status}"}} {count}'
        yield "# HELP modelkit_waiting Requests that wait for the native model or are in it."
        yield "# TYPE modelkit_waiting gauge"
        yield f"modelkit_waiting {self.waiting}"
        yield "# HELP modelkit_request_seconds From the whole body to the answer."
        yield "# TYPE modelkit_request_seconds histogram"
        total = 0
        for bound, count in zip([*map(str, _BOUNDS), "+Inf"], self._buckets, strict=True):
            total += count
            yield f'modelkit_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"modelkit_request_seconds_sum {self._seconds:.9f}"
        yield f"modelkit_request_seconds_count {total}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
