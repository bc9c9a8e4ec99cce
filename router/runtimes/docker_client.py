"""Calls of Docker's API, in threads, with their errors translated at this one edge.

Of Docker's SDK the connection is used: sockets, versions, registry logins. Paths and bodies are spelled out
by the callers, since the socket proxy lets no other calls through than those, and no other keys.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, get_cancelled_exc_class, to_thread
from docker import APIClient
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import DockerException
from docker.types import CancellableStream
from requests import RequestException, Response
from urllib3.exceptions import HTTPError

from router.core.errors import ImageNotFound, RuntimeUnavailable
from router.runtimes.docker_transport import connect

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
CALLS_AT_ONCE = 16
OTHER_VERSION = "client version "  # is too old, or too new
GONE = frozenset({502, 503, 504})  # what a proxy says for a daemon that does not answer

T = TypeVar("T")


class Refused(RuntimeUnavailable):
    """Docker, or the proxy before it, has refused a call."""

    def __init__(self, answer: int, message: str) -> None:
        self.answer = answer  # its HTTP status
        super().__init__(f"Docker refuses: {message}")
        self.reason = message


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = ANSWER_SECONDS  # None: its answer has no end


class DockerClient:
    """Raises RuntimeUnavailable where nothing answers, Refused for every other answer than a good one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: tuple[APIClient, str] | None = None  # and the version of the API
        self._connecting = threading.Lock()
        self._limiter = CapacityLimiter(CALLS_AT_ONCE)

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """The answer's JSON, or None if it has none."""
        return await self.consume(Call(method, path, query, body), _read_json)

    async def consume(self, call: Call, reader: Callable[[Response], T]) -> T:
        """`reader` reads the answer, as it comes, in a thread."""

        def work() -> T:
            with self._translated(), self._open(call) as response:
                return reader(response)

        return await to_thread.run_sync(work, limiter=self._limiter)

    async def open(self, call: Call) -> "Lines":
        """An answer as lines of JSON, which may be silent for `call.seconds`. To be closed by who opens it.

        Its first byte may be long in coming. Who is cancelled meanwhile does not wait for it: the thread
        closes what nobody wants any more.
        """
        left = threading.Event()

        def work() -> Lines:
            with self._translated():
                lines = Lines(self._open(call), self._translated)
            if left.is_set():
                lines.close()
            return lines

        try:
            return await to_thread.run_sync(work, limiter=self._limiter, abandon_on_cancel=True)
        except get_cancelled_exc_class():
            left.set()
            raise

    async def find_login(self, repository: str) -> dict[str, str]:
        """The header that lets us in at the repository's registry, as `docker login` left it here."""

        def work() -> dict[str, str]:
            with self._translated():
                connection, _ = self._connect()
            try:
                registry, _ = resolve_repository_name(repository)
                header = get_config_header(connection, registry)
            except DockerException as error:
                raise ImageNotFound(
                    f"there is no way to log in where {repository} is pulled from: {error}",
                    hint="the configuration in DOCKER_CONFIG must hold the login itself, not name a helper",
                ) from error
            return {"X-Registry-Auth": header.decode()} if header else {}

        return await to_thread.run_sync(work, limiter=self._limiter)

    def close(self) -> None:
        if self._connection is not None:
            self._connection[0].close()
            self._connection = None

    def _connect(self) -> tuple[APIClient, str]:
        """The version of the API is agreed on at the first call, and again after `close`."""
        with self._connecting:
            if self._connection is None:
                timeout = CONNECT_SECONDS, ANSWER_SECONDS
                self._connection = connect(self._address, CALLS_AT_ONCE + 2, timeout)
            return self._connection

    def _open(self, call: Call) -> Response:
        connection, version = self._connect()
        response = connection.request(
            call.method,
            f"{connection.base_url}/v{version}{quote(call.path, safe='/:@')}",
            params=call.query,
            json=call.body,
            headers=call.headers,
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_SECONDS, call.seconds or CONNECT_SECONDS), call.seconds),
        )
        if response.status_code < 300 or response.status_code == 304:  # 304: it is so already
            return response
        with response:
            message = _read_message(response)
        if message.startswith(OTHER_VERSION):
            with self._connecting:  # the engine is another one than we agreed with: agree again
                self.close()
        if response.status_code in GONE or message.startswith(OTHER_VERSION):
            raise RuntimeUnavailable(f"Docker does not answer at {self._address}: {message}")
        raise Refused(response.status_code, message)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (RequestException, HTTPError, DockerException, OSError, ValueError) as error:
            raise RuntimeUnavailable(
                f"Docker does not answer at {self._address}: {_find_root(error)}",
                hint="see that the engine (or the socket proxy) runs, and DOCKER_HOST",
            ) from error


class Lines:
    """Values that come one a line for as long as the other side likes, read in a thread of their own."""

    def __init__(self, response: Response, translated: Callable[[], Any]) -> None:
        self._response = response
        self._stream = CancellableStream(iter(()), response)  # knows how to close it under a reader
        self._closed = False
        self._translated = translated

    async def read(self, heard: Callable[[dict[str, Any]], None]) -> None:
        """Call `heard` in the event loop for each, until the other side ends, or we are cancelled."""
        loop = asyncio.get_running_loop()

        def work() -> None:
            with self._translated():
                for line in self._lines():
                    if line:
                        loop.call_soon_threadsafe(heard, json.loads(line))

        # A cancelled read ends its thread by `close`, which the caller owes.
        await to_thread.run_sync(work, limiter=CapacityLimiter(1), abandon_on_cancel=True)

    def _lines(self) -> Iterator[bytes]:
        """A stream that is cut off is an error, except by ourselves."""
        try:
            yield from self._response.iter_lines(chunk_size=1)
        except (RequestException, HTTPError, OSError, ValueError, AttributeError):
            if not self._closed:
                raise

    def close(self) -> None:
        """From any thread; whoever reads is at the end."""
        self._closed = True
        with suppress(OSError, AttributeError):  # ended already
            self._stream.close()
        self._response.close()


def _read_json(response: Response) -> Any:
    return json.loads(response.content) if response.content else None


def _read_message(response: Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status_code} {response.reason}"


def _find_root(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


filters_of = partial(json.dumps, separators=(",", ":"))
