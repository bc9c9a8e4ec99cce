"""Servers that answer badly: each is told in words, and none holds the prober up or brings it down."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from router.engine import probing
from router.engine.probing import ProbeFailed, Prober, WrongAnswer
from tests.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


class Dripping(httpx.AsyncByteStream):
    """An answer that never ends: a byte now, the next never."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep_forever()


class Endless(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1024


def make_prober(response: httpx.Response, answer_timeout: float = 30.0) -> Prober:
    transport = httpx.MockTransport(lambda _: response)
    return Prober(FakeClock(), answer_timeout=answer_timeout, transport=transport)


async def test_an_answer_that_drips_is_given_up_after_the_time_for_a_whole_one() -> None:
    prober = make_prober(httpx.Response(200, stream=Dripping()), answer_timeout=0.05)
    with pytest.raises(ProbeFailed, match=r"/ping did not answer within 0\.05 s"):
        await prober.ping("server:8080")


async def test_a_server_that_hangs_gets_no_more_time_than_its_deadline() -> None:
    prober = make_prober(httpx.Response(200, stream=Dripping()))
    with pytest.raises(ProbeFailed, match="did not answer within 1 s"):
        await prober.prove("server:8080", b"{}", deadline=0.0)


async def test_an_endless_answer_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MAX_ANSWER_BYTES", 10_000)
    prober = make_prober(httpx.Response(200, stream=Endless()))
    with pytest.raises(ProbeFailed, match="more than 10000 bytes"):
        await prober.predict("server:8080", b"{}")


async def test_predictions_that_are_nested_without_end_are_a_wrong_answer() -> None:
    nested = b'{"predictions": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with pytest.raises(WrongAnswer, match="without predictions"):
        await make_prober(httpx.Response(200, content=nested)).predict("server:8080", b"{}")


async def test_an_encoded_answer_which_may_be_larger_than_all_memory_is_a_failed_probe() -> None:
    broken = httpx.Response(200, headers={"Content-Encoding": "gzip, gzip"}, stream=httpx.ByteStream(b"\x1f"))
    with pytest.raises(ProbeFailed, match="encoded as gzip, gzip"):
        await make_prober(broken).ping("server:8080")


async def test_a_ping_that_answers_400_is_no_verdict_on_the_models_example() -> None:
    refusing = httpx.Response(400, content=b"not yet")
    with pytest.raises(ProbeFailed, match="/ping answered 400: not yet") as caught:
        await make_prober(refusing).ping("server:8080")
    assert not isinstance(caught.value, WrongAnswer)
    with pytest.raises(WrongAnswer, match="refused the model's own input example"):
        await make_prober(httpx.Response(400)).predict("server:8080", b"{}")
