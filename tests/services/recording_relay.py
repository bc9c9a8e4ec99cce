"""A unix socket in front of another, which keeps what goes in: what a proxy behind it really sent."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_REQUEST_LINE = re.compile(rb"^([A-Z]+) (\S+) HTTP/1\.1\r$", re.MULTILINE)
_CHUNK = 65536


class RecordingRelay:
    """`path` may be closed and opened again, as a server that is restarted does."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target
        self._sent: list[bytearray] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def requests(self) -> list[str]:
        """`GET /version` for each, by connection; a body that looks like a request counts as one."""
        return [
            f"{method.decode()} {target.decode()}"
            for sent in self._sent
            for method, target in _REQUEST_LINE.findall(sent)
        ]

    def forget(self) -> None:
        for sent in self._sent:
            sent.clear()

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(128)
        self._sockets.append(listener)
        self._run(self._accept, listener)

    def close(self) -> None:
        """Ends the connections too."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
        self._sockets.clear()
        self._threads.clear()
        self.path.unlink(missing_ok=True)

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                inner, _ = listener.accept()
                outer = socket.socket(socket.AF_UNIX)
                self._sockets += [inner, outer]
                outer.connect(str(self._target))
                sent = bytearray()
                self._sent.append(sent)
                self._run(self._carry, inner, outer, sent)
                self._run(self._carry, outer, inner, None)

    def _carry(self, source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if kept is not None:
                    kept += data
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def run_recording_relay(path: Path, target: Path) -> Iterator[RecordingRelay]:
    relay = RecordingRelay(path, target)
    relay.open()
    try:
        yield relay
    finally:
        relay.close()
