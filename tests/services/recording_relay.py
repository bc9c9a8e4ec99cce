"""A unix socket in front of another, which keeps what goes in: what a proxy behind it really sent."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_REQUEST_LINE = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r$", re.MULTILINE)
_CHUNK = 65536


class Connection:
    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.outer = socket.socket(socket.AF_UNIX)
        self.sent = bytearray()
        self.ended = threading.Event()

    def requests(self) -> list[str]:
        """`GET /version` for each; a body that looks like a request counts as one."""
        return [f"{method.decode()} {target.decode()}" for method, target in _REQUEST_LINE.findall(self.sent)]


class RecordingRelay:
    """May be closed and opened again, as a server that is restarted."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self._listener: socket.socket | None = None
        self._connections: list[Connection] = []
        self._threads: list[threading.Thread] = []

    def requests(self) -> list[str]:
        return [request for connection in self._connections for request in connection.requests()]

    def forget(self) -> None:
        for connection in self._connections:
            connection.sent.clear()

    def connection_of(self, request: str) -> Connection:
        """The latest on which a request like this one went in."""
        for connection in reversed(self._connections):
            if any(request in sent for sent in connection.requests()):
                return connection
        raise LookupError(request)

    def change_request(self, data: bytes) -> bytes:
        """What goes on instead of what came in; for a relay that pretends."""
        return data

    def change_answer(self, data: bytes) -> bytes:
        return data

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self.path.chmod(0o660)  # as Docker's own: its group may use it
        self._listener.listen(128)
        self._run(self._accept, self._listener)

    def close(self) -> None:
        """Ends the connections too."""
        assert self._listener is not None
        both = [each for made in self._connections for each in (made.inner, made.outer)]
        for each in (self._listener, *both):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
        self._connections.clear()
        self._threads.clear()
        self.path.unlink()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection = Connection(listener.accept()[0])
                self._connections.append(connection)
                connection.outer.connect(str(self._target))
                self._run(self._carry_requests, connection)
                self._run(self._carry_answers, connection)

    def _carry_requests(self, connection: Connection) -> None:
        with suppress(OSError):
            while data := connection.inner.recv(_CHUNK):
                connection.sent += data
                connection.outer.sendall(self.change_request(data))
        connection.ended.set()
        with suppress(OSError):
            connection.outer.shutdown(socket.SHUT_RDWR)

    def _carry_answers(self, connection: Connection) -> None:
        with suppress(OSError):
            while data := connection.outer.recv(_CHUNK):
                connection.inner.sendall(self.change_answer(data))
        with suppress(OSError):
            connection.inner.shutdown(socket.SHUT_RDWR)


@contextmanager
def run_recording_relay(path: Path, target: Path) -> Iterator[RecordingRelay]:
    relay = RecordingRelay(path, target)
    relay.open()
    try:
        yield relay
    finally:
        relay.close()
