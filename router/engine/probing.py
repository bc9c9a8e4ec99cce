"""Proves a server with real answers before it may get traffic.

A server that answers `/ping` has loaded a model; only a prediction shows that the model works (MLflow's own
`/ping` never calls predict). A server that flaps must not slip through on a lucky moment, so proof is several
good answers in a row.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import httpx
from anyio import fail_after

from router.core.clock import Clock

PROOFS = 3  # good answers in a row
RETRY_SECONDS = 0.05
LAST_ATTEMPT_SECONDS = 1.0  # for one that begins at the deadline
ANSWER_BYTES = 300  # of a bad answer, kept as evidence
MAX_ANSWER_BYTES = 16 * 1024 * 1024
EXAMPLE = "the model's own input example"


class ProbeFailed(Exception):
    """One probe got no good answer; the text says which and why."""


class WrongAnswer(ProbeFailed):
    """The server answered, and the answer is wrong: asking again would not change it."""


@dataclass(frozen=True)
class Proof:
    """What was asked and answered, for the record."""

    warnings: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    asked: bytes | None = None
    answer: Any = None  # predictions, parsed


class Prober:
    """Talks to servers directly, past the proxy. Times in seconds."""

    def __init__(
        self,
        clock: Clock,
        *,
        answer_timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._clock = clock
        self._answer_timeout = answer_timeout
        # A connection of its own each time: a probe must not succeed on a socket that users could not get.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(answer_timeout, connect=2.0),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            transport=transport,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ping(self, address: str, seconds: float = math.inf) -> None:
        """Raises ProbeFailed unless `/ping` answers 200 within so many seconds."""
        await self._ask("GET", f"http://{address}/ping", None, seconds)

    async def prove(self, address: str, example: bytes | None, deadline: float) -> Proof:
        """Ask until the server has proved itself.

        Raises WrongAnswer at once, or ProbeFailed with the last failure at the deadline (epoch seconds).
        """
        good = attempts = 0
        answer: Any = None
        while good < PROOFS:
            attempts += 1
            left = max(LAST_ATTEMPT_SECONDS, deadline - self._clock.now())
            try:
                await self.ping(address, left)
                if example is not None:
                    answer = await self.predict(address, example, left)
                good += 1
            except WrongAnswer:
                raise
            except ProbeFailed:
                good = 0
                if self._clock.now() >= deadline:
                    raise
                await self._clock.sleep(RETRY_SECONDS)
        evidence = {"ping": 200, "attempts": attempts}
        if example is None:
            return Proof(
                ("the model has no input example: only /ping was asked, no prediction made",), evidence
            )
        return Proof((), evidence | {"predictions": _shorten(answer)}, example, answer)

    async def predict(
        self, address: str, example: bytes, seconds: float = math.inf, *, what: str = EXAMPLE
    ) -> Any:
        """The parsed predictions. Raises WrongAnswer if they are missing or not finite, else ProbeFailed."""
        body = await self._ask("POST", f"http://{address}/invocations", example, seconds, what)
        try:
            predictions = json.loads(body)["predictions"]
            finite = _is_finite(predictions)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise WrongAnswer(f"/invocations answered 200 without predictions: {_text(body)}") from error
        if predictions in ([], {}, None) or not finite:
            raise WrongAnswer(f"/invocations answered predictions that are not finite: {_text(body)}")
        return predictions

    async def _ask(
        self, method: str, url: str, content: bytes | None, seconds: float, what: str = ""
    ) -> bytes:
        """The body of a 200. The time is that of the whole exchange, however slowly it drips."""
        path = httpx.URL(url).path
        seconds = min(seconds, self._answer_timeout)
        try:
            with fail_after(seconds):
                status, body = await self._exchange(method, url, content)
        except TimeoutError as error:
            raise ProbeFailed(f"{path} did not answer within {seconds:.3g} s") from error
        except httpx.RequestError as error:
            raise ProbeFailed(f"{path} did not answer: {type(error).__name__} {error}".rstrip()) from error
        if status == 400 and content is not None:
            raise WrongAnswer(f"{path} refused {what}: {_text(body)}")
        if status != 200:
            raise ProbeFailed(f"{path} answered {status}: {_text(body)}")
        return body

    async def _exchange(self, method: str, url: str, content: bytes | None) -> tuple[int, bytes]:
        headers = {"Accept-Encoding": "identity"}  # a few bytes may be the gzip of gigabytes
        if content is not None:
            headers["Content-Type"] = "application/json"
        async with self._client.stream(method, url, content=content, headers=headers) as response:
            if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
                raise ProbeFailed(f"{httpx.URL(url).path} answers encoded as {encoding[:40]}, not as asked")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ProbeFailed(f"{httpx.URL(url).path} answers more than {MAX_ANSWER_BYTES} bytes")
            return response.status_code, bytes(body)


def _is_finite(value: Any) -> bool:
    """Whether every number in it is finite. Null counts as not a number: serializers write NaN that way."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    return value is not None


def _shorten(predictions: Any) -> str:
    return json.dumps(predictions)[:ANSWER_BYTES]


def _text(body: bytes) -> str:
    return body[:ANSWER_BYTES].decode("utf-8", "replace")
