"""How a server leaves without losing a request on a connection that it kept open.

uvicorn closes idle connections when it is told to end. Under load a request may be on its way on one of them:
it would be lost. So for a moment every answer closes its connection, and clients in between requests go.
"""

import asyncio
from types import FrameType

import uvicorn

from modelkit.serve.app import App

_SECONDS = 0.5  # many times what a busy client leaves between two requests


class LeavingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal, in between any two steps of the event loop; a second signal ends at once."""
        if self._app.is_leaving:
            super().handle_exit(sig, frame)
            return
        self._app.is_leaving = True
        leave = super().handle_exit
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(lambda: loop.call_later(_SECONDS, leave, sig, None))
