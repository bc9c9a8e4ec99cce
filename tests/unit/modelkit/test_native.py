"""The native model of a compiled one: loaded by the first request that needs it, and who waits for that."""

import threading
from concurrent.futures import ThreadPoolExecutor

from modelkit.serve.answers import Answer, Predict
from modelkit.serve.batching import Permits, hold
from modelkit.serve.native import NativeWhenNeeded

DEADLINE = 60  # seconds


def echo(body: bytes, _type: str | None) -> Answer:
    return Answer(200, body, "text/plain")


def test_a_request_that_comes_while_the_model_is_loaded_gets_its_thread_back() -> None:
    begun, loaded = threading.Event(), threading.Event()

    def load() -> Predict:
        begun.set()
        assert loaded.wait(DEADLINE)
        return echo

    predict = NativeWhenNeeded(load, 0.01)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(predict, b"first", None)
        assert begun.wait(DEADLINE)
        second = predict(b"second", None)
        loaded.set()
        assert first.result(DEADLINE).body == b"first"
    assert second.status == 503
    assert b"is being loaded" in second.body
    assert predict(b"third", None).body == b"third"


def test_no_more_is_at_work_at_once_than_there_are_permits() -> None:
    at_work, most, counting = 0, 0, threading.Lock()

    def work(turn: int) -> int:
        nonlocal at_work, most
        with counting:
            at_work += 1
            most = max(most, at_work)
        both.wait()
        with counting:
            at_work -= 1
        return turn

    both = threading.Barrier(2, timeout=DEADLINE)  # so that two have to be at work at once, to get on
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hold(Permits(2), work), range(8)))
    assert found == list(range(8))
    assert most == 2
