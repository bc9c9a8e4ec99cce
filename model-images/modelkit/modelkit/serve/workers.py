"""Several processes behind one port, each with the model: a prediction that holds Python's lock holds one.

uvicorn's own supervisor takes a worker that is busy for 5 s for dead, and leaves its workers behind when it
is killed. Here a worker is forked before anything is imported that a fork could upset, is started again when
it dies, and leaves when its parent is gone.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType

# (which worker, what to call when the model is in memory); ends the process itself where it has to.
Work = Callable[[int, Callable[[], None]], None]

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before a worker is started again
_CALM_SECONDS = 60.0  # one that lived so long starts the count again
_fork = multiprocessing.get_context("fork")

log = logging.getLogger("modelkit.serve")


class Workers:
    def __init__(self, work: Work, stop_listening: Callable[[], None]) -> None:
        """`stop_listening` is for this process, which must not keep a port open that nobody answers."""
        self._work = work
        self._stop_listening = stop_listening
        self._processes: dict[int, ForkProcess] = {}
        self._began: dict[int, float] = {}  # by place, as all here; monotonic seconds
        self._starts: dict[int, int] = {}  # in a row, each soon after the one before
        self._due: dict[int, float] = {}
        self._is_leaving = False

    def run(self, count: int) -> bool:
        """Until they are told to end. False if one could not start at first, or none can any more.

        One that dies later is started again and again: the others serve meanwhile.
        """
        for number in _SIGNALS:
            signal.signal(number, self._leave)
        # One after the other: what the first has fetched, the next find.
        all_started = all(self._start(place) for place in range(count) if not self._is_leaving)
        if not all_started:
            log.error("a worker did not start; the others end")
            self._leave()
        while self._processes:
            pause = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
            wait([process.sentinel for process in self._processes.values()], pause)
            for place, process in list(self._processes.items()):
                if process.exitcode is not None:
                    del self._processes[place]
                    self._plan_start(place, process.exitcode)
            for place, due in list(self._due.items()):
                if due <= time.monotonic() and not self._is_leaving:
                    del self._due[place]
                    self._start(place)
        return all_started and (self._is_leaving or not self._due)

    def _plan_start(self, place: int, status: int) -> None:
        if self._is_leaving:
            return
        is_calm = time.monotonic() - self._began[place] > _CALM_SECONDS
        starts = 0 if is_calm else self._starts.get(place, 0)
        pause = _PAUSES[min(starts, len(_PAUSES) - 1)]
        log.error("worker %d ended with %s and is started again in %g s", place, status, pause)
        self._starts[place], self._due[place] = starts + 1, time.monotonic() + pause

    def _start(self, place: int) -> bool:
        """Returns when it serves, or has ended."""
        ready, tell = _fork.Pipe(duplex=False)
        process = _fork.Process(target=self._begin, args=(place, lambda: tell.send_bytes(b"ready")))
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # so that no worker misses one
        process.start()
        self._began[place] = time.monotonic()
        self._processes[place] = process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        tell.close()
        wait([ready, process.sentinel])
        return _hears(ready) or self._is_leaving

    def _begin(self, place: int, tell_ready: Callable[[], None]) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        threading.Thread(target=_leave_with_parent, daemon=True).start()
        self._work(place, tell_ready)

    def _leave(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        self._is_leaving = True
        self._stop_listening()
        for process in self._processes.values():
            process.terminate()


def _hears(ready: Connection) -> bool:
    with ready:
        try:
            return ready.poll() and bool(ready.recv_bytes())
        except EOFError:
            return False


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
