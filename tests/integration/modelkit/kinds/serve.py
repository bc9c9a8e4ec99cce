"""Run by a model's own Python: all kinds behind one port, each below its name, as modelkit answers."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn

from modelkit.serve.app import App
from modelkit.serve.opening import open_model
from modelkit.serve.telemetry import Telemetry
from modelkit.settings import ServeSettings, read_settings


def main(port: int, kinds: list[str], folder: Path) -> None:
    apps = {}
    for kind in kinds:
        own = folder / kind
        own.mkdir()
        environ = {**os.environ, "SERVE_MODEL_URI": f"models:/{kind}/1"}
        telemetry = Telemetry()
        served = open_model(read_settings(ServeSettings, environ), own, telemetry)
        apps[kind] = App(served.predict, served.about, served.limits, served.lean, telemetry)

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        _, kind, rest = scope["path"].split("/", 2)
        await apps[kind]({**scope, "path": f"/{rest}"}, receive, send)

    uvicorn.run(dispatch, host="127.0.0.1", port=port, lifespan="off", log_level="warning")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(int(sys.argv[1]), sys.argv[2:], Path(temporary))
