"""`python -m router`: the control plane as a process."""

import logging
import sys

import structlog
import uvicorn

from router.core.errors import SwitchyardError
from router.settings import Settings
from router.wiring import build_app

# Longer than clients keep a connection that they do not use: none then sends into one that is being closed.
KEEP_ALIVE_SECONDS = 75


def escape_controls(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """What servers and callers say goes into log lines too: nobody may end a line, or steer a terminal."""
    return {
        name: value.encode("unicode_escape").decode()
        if isinstance(value, str) and not value.isprintable()
        else value
        for name, value in event.items()
    }


def configure_logs(settings: Settings) -> None:
    renderer: structlog.types.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            escape_controls,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


class Server(uvicorn.Server):
    """Ends with its application, so that whoever keeps the router running starts another one.

    uvicorn by itself would go on answering that it is alive after all work has broken off.
    """

    @property
    def broken(self) -> bool:
        return bool(self.lifespan.error_occurred)

    async def on_tick(self, counter: int) -> bool:
        return self.broken or await super().on_tick(counter)


def main() -> int:
    try:
        settings = Settings.load()
        configure_logs(settings)
        app = build_app(settings)
    except SwitchyardError as error:
        sys.stderr.write(f"{error.message}\n{error.hint or ''}".rstrip() + "\n")
        return 2
    server = Server(
        uvicorn.Config(
            app,
            host=settings.router_host,
            port=settings.router_port,
            lifespan="on",
            log_level=settings.log_level,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=5,
        )
    )
    server.run()
    return 1 if server.broken or not server.started else 0


if __name__ == "__main__":
    sys.exit(main())
