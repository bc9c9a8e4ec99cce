"""How a server leaves without losing a request, on a connection that it kept open or on a new one.

uvicorn closes its listener and idle connections when it is told to end. Under load a request may be on its
way on one of them, or on a connection that nobody has accepted yet: it would be lost. So for a moment every
answer closes its connection, and clients in between requests go; then for another the kernel lets nobody
connect anew, and what is connected already gets its answer.
"""

import asyncio
import ctypes
import socket
import struct
from contextlib import suppress
from types import FrameType

import uvicorn

from modelkit.serve.app import App

_SECONDS = 0.5  # many times what a busy client leaves between two requests
_SECONDS_TO_DRAIN = 0.25  # and between connecting and asking

# A filter of the kernel's: a segment that begins a connection (with SYN, in the 14th byte of TCP's header) is
# dropped. Its sender tries again after a second, and is refused.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_INSTRUCTIONS = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
_DROP_SYN = b"".join(struct.pack("HBBI", *instruction) for instruction in _INSTRUCTIONS)


class LeavingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App, listener: socket.socket) -> None:
        super().__init__(config)
        self._app, self._listener = app, listener

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal, in between any two steps of the event loop; a second signal ends at once."""
        if self._app.is_leaving:
            super().handle_exit(sig, frame)
            return
        self._app.is_leaving = True
        leave = super().handle_exit
        loop = asyncio.get_running_loop()

        def turn_away() -> None:
            _drop_connects(self._listener)
            loop.call_later(_SECONDS_TO_DRAIN, leave, sig, None)

        loop.call_soon_threadsafe(lambda: loop.call_later(_SECONDS, turn_away))


def let_connect(listener: socket.socket) -> None:
    """A worker that was told to end alone has shut the door of all, its heir's too."""
    with suppress(OSError):  # nobody has
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _drop_connects(listener: socket.socket) -> None:
    """What waits to be accepted stays, which a listener that is closed would reset."""
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    with suppress(OSError):  # not this kernel's
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("HL", len(_INSTRUCTIONS), ctypes.addressof(program)),
        )
