"""What a server counts, in Prometheus' text format.

Plain cells instead of the client library: its locks and labels would cost a third of a compiled prediction.
They lie in memory that the workers of one server share, so that whichever is asked tells the sum.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

_LANES = ("compiled", "native", "refused", "late")
_STATUSES = 600
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 4096, 16384)

# Where things lie in the cells of one worker. A histogram is its buckets, then its sum.
_TIMES_AT = len(_LANES) * _STATUSES
_ROWS_AT = _TIMES_AT + len(_SECONDS) + 2
_WAITING_AT = _ROWS_AT + len(_ROWS) + 2
_CELLS = _WAITING_AT + 1
_CELL_BYTES = 8


class Board:
    """The cells of all workers. Made before they are forked."""

    def __init__(self, workers: int = 1) -> None:
        self._cells = memoryview(mmap.mmap(-1, workers * _CELLS * _CELL_BYTES)).cast("d")

    def part(self, worker: int) -> "memoryview[float]":
        return self._cells[worker * _CELLS : (worker + 1) * _CELLS]

    def sum(self, cell: int) -> float:
        return sum(self._cells[cell::_CELLS])


class Telemetry:
    def __init__(self, board: Board | None = None, worker: int = 0) -> None:
        """A worker that is started again goes on with its predecessor's counts."""
        self._board = board or Board()
        self._cells = self._board.part(worker)
        self._counting_rows = Lock()
        self.waiting = 0

    @property
    def waiting(self) -> int:
        return int(self._cells[_WAITING_AT])

    @waiting.setter
    def waiting(self, requests: int) -> None:
        self._cells[_WAITING_AT] = requests

    def count(self, lane: str, status: int, seconds: float) -> None:
        """On the event loop's thread only."""
        self.count_answer(lane, status)
        self._cells[_TIMES_AT + bisect_left(_SECONDS, seconds)] += 1
        self._cells[_TIMES_AT + len(_SECONDS) + 1] += seconds

    def count_answer(self, lane: str, status: int) -> None:
        self._cells[_LANES.index(lane) * _STATUSES + status] += 1

    def count_rows(self, rows: int) -> None:
        """Once for every call of the model, from any thread."""
        with self._counting_rows:
            self._cells[_ROWS_AT + bisect_left(_ROWS, rows)] += 1
            self._cells[_ROWS_AT + len(_ROWS) + 1] += rows

    def render(self, labels: Mapping[str, str]) -> str:
        """`labels` say which model this is."""
        return "\n".join([*self._lines(labels), ""])

    def _lines(self, labels: Mapping[str, str]) -> Iterable[str]:
        yield "# TYPE modelkit_model_info gauge"
        told = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
        yield f"modelkit_model_info{{{told}}} 1"
        yield "# HELP modelkit_requests_total Requests for predictions, by who answered and the status."
        yield "# TYPE modelkit_requests_total counter"
        for place, lane in enumerate(_LANES):
            for status in range(_STATUSES):
                if count := int(self._board.sum(place * _STATUSES + status)):
                    yield f'modelkit_requests_total{{lane="{lane}",status="{status}"}} {count}'
        yield "# HELP modelkit_waiting Requests that wait for a thread or are in one."
        yield "# TYPE modelkit_waiting gauge"
        yield f"modelkit_waiting {int(self._board.sum(_WAITING_AT))}"
        yield "# HELP modelkit_request_seconds From the whole body to the answer."
        yield from self._histogram("modelkit_request_seconds", _TIMES_AT, _SECONDS)
        yield "# HELP modelkit_batch_rows Rows of one call of the model, from one request or several."
        yield from self._histogram("modelkit_batch_rows", _ROWS_AT, _ROWS)

    def _histogram(self, name: str, start: int, bounds: Sequence[float]) -> Iterable[str]:
        yield f"# TYPE {name} histogram"
        total = 0
        for place, bound in enumerate([*map(str, bounds), "+Inf"]):
            total += int(self._board.sum(start + place))
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self._board.sum(start + len(bounds) + 1):.9g}"
        yield f"{name}_count {total}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
