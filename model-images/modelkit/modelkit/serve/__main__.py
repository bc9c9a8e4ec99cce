"""`python -m modelkit.serve`: serves the model that the environment names until SIGTERM.

The port is taken first, so that a wrong one is known at once, but nobody can connect before the model is in
memory: whoever waits for this server sees refused connections, then answers.
"""

import gc
import logging
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from modelkit.serve.telemetry import Board, Telemetry
from modelkit.serve.workers import Workers
from modelkit.settings import ServeSettings, SettingsError, read_settings

_KEEP_IDLE_CONNECTIONS = 75  # seconds; a proxy in front gives up earlier, so no request meets a closing one

log = logging.getLogger("modelkit.serve")


def main() -> None:
    started = time.monotonic()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _end_process)
    try:
        settings = read_settings(ServeSettings, os.environ)
        listener = _take_port(settings.serve_host, settings.serve_port)
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400 - the message is written for the user; a traceback would bury it
        sys.exit(1)
    with listener, tempfile.TemporaryDirectory(prefix="model-") as name:
        folder = Path(name)
        if settings.serve_workers == 1:
            is_stuck = _serve(settings, listener, folder, started, Telemetry(), lambda: None)
        elif _serve_by_workers(settings, listener, folder, started):
            is_stuck = False
        else:
            sys.exit(1)
    if is_stuck:
        _end_at_once()


def _serve_by_workers(settings: ServeSettings, listener: socket.socket, folder: Path, started: float) -> bool:
    """Until they are told to end. False if one could not start."""
    board = Board(settings.serve_workers)
    shared = settings.model_copy(update={"serve_cache_dir": settings.serve_cache_dir or folder / "cache"})

    def work(place: int, tell_ready: Callable[[], None]) -> None:
        signal.signal(signal.SIGTERM, _end_process)
        own = folder / str(place)
        shutil.rmtree(own, ignore_errors=True)  # of a worker that died
        own.mkdir()
        if _serve(shared, listener, own, started, Telemetry(board, place), tell_ready):
            _end_at_once()

    return Workers(work, listener.close).run(settings.serve_workers)


def _end_at_once() -> None:
    """Python would wait for a thread that a prediction holds, for ever."""
    logging.shutdown()
    os._exit(0)


def _end_process(_signal: int, _frame: FrameType | None) -> None:
    """Before the server runs, SIGTERM ends the process here; uvicorn comes here after its last answer.

    Without a handler, SIGTERM would do nothing at all to the first process of a container.
    """
    sys.exit(0)


def _take_port(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"SERVE_HOST={host} SERVE_PORT={port}: {error.strerror or error}") from error
    return listener


def _serve(
    settings: ServeSettings,
    listener: socket.socket,
    folder: Path,
    started: float,
    telemetry: Telemetry,
    tell_ready: Callable[[], None],
) -> bool:
    """Until it is told to end. True if a prediction still has a thread and will not give it back."""
    gc.disable()  # what is imported stays: looking for garbage in it took a tenth of the start
    # Imported here because they take time: a wrong setting is told before.
    import uvicorn

    from modelkit.serve.app import App
    from modelkit.serve.fetching import ModelLoadError
    from modelkit.serve.leaving import LeavingServer, let_connect
    from modelkit.serve.opening import open_model

    try:
        served = open_model(settings, folder, telemetry)
    except (ModelLoadError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - the message is written for the user; a traceback would bury it
        sys.exit(1)
    gc.freeze()
    gc.enable()
    log.info(
        "serving %s (%s version %s, run %s, server %s) on %s:%s after %.2f s, %s%s",
        settings.serve_model_uri,
        settings.model_name,
        settings.model_version,
        settings.mlflow_run_id,
        settings.server_id,
        settings.serve_host,
        settings.serve_port,
        time.monotonic() - started,
        served.about.path,
        f": {served.about.reason}" if served.about.reason else "",
    )
    app = App(served.predict, served.about, served.limits, served.lean, telemetry)
    config = uvicorn.Config(
        app,
        access_log=False,
        lifespan="off",
        log_config=None,
        timeout_keep_alive=_KEEP_IDLE_CONNECTIONS,
        # No prediction takes longer; but a client may never read its answer.
        timeout_graceful_shutdown=math.ceil(served.limits.request_seconds) + 1,
    )
    let_connect(listener)
    tell_ready()
    with suppress(SystemExit):  # uvicorn raises the signal once more after its last answer
        LeavingServer(config, app, listener).run(sockets=[listener])
    return telemetry.waiting > 0


if __name__ == "__main__":
    main()
