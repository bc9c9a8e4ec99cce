"""`python -m socket_proxy`: the proxy as a process."""

import logging
import sys
from types import FrameType

import uvicorn
from pydantic import ValidationError

from socket_proxy.app import SocketProxy
from socket_proxy.settings import PREFIX, Settings


class Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Open streams end with it: the router follows events for as long as it runs."""
        super().handle_exit(sig, frame)
        self.config.app.end_streams()  # type: ignore[union-attr]


def main() -> int:
    try:
        settings = Settings.load()
    except ValidationError as error:
        for found in error.errors():
            sys.stderr.write(f"{PREFIX}{'.'.join(map(str, found['loc'])).upper()}: {found['msg']}\n")
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = uvicorn.Config(
        SocketProxy(settings),
        host=settings.host,
        port=settings.port,
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        log_config=None,
        access_log=False,
        limit_concurrency=512,
        timeout_keep_alive=75,  # longer than clients keep a connection that they do not use
        timeout_graceful_shutdown=5,
    )
    Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
