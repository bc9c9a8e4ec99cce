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
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType

# (which worker, what to call when the model is in memory); ends the process itself where it has to.
Work = Callable[[int, Callable[[], None]], None]

_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_fork = multiprocessing.get_context("fork")

log = logging.getLogger("modelkit.serve")


class Workers:
    def __init__(self, work: Work, stop_listening: Callable[[], None]) -> None:
        """`stop_listening` is for this process, which must not keep a port open that nobody answers."""
        self._work = work
        self._stop_listening = stop_listening
        self._processes: dict[int, ForkProcess] = {}
        self._is_leaving = False

    def run(self, count: int) -> bool:
        """Until they are told to end; False if one could not start, after which the others end, too."""
        for number in _SIGNALS:
            signal.signal(number, self._leave)
        # One after the other: what the first has fetched, the next find.
        all_started = all(self._start(place) for place in range(count) if not self._is_leaving)
        while self._processes:
            wait([process.sentinel for process in self._processes.values()])
            for place, process in list(self._processes.items()):
                if process.exitcode is None:
                    continue
                del self._processes[place]
                if not self._is_leaving:
                    log.error("worker %d ended with %s and is started again", place, process.exitcode)
                    all_started &= self._start(place)
        return all_started

    def _start(self, place: int) -> bool:
        """Returns when it serves, or has ended."""
        ready, tell = _fork.Pipe(duplex=False)
        process = _fork.Process(target=self._begin, args=(place, lambda: tell.send_bytes(b"ready")))
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # so that no worker misses one
        process.start()
        self._processes[place] = process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        tell.close()
        wait([ready, process.sentinel])
        if _hears(ready) or self._is_leaving:
            return True
        log.error("worker %d did not start; the others end", place)
        self._leave()
        return False

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
