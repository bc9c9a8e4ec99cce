"""Run by MLflow's own Python: the app of `mlflow models serve`, once for each kind, below its name."""

import sys
from typing import Any

import uvicorn
from mlflow.pyfunc import load_model, scoring_server


def main(port: int, kinds: list[str]) -> None:
    apps = {kind: scoring_server.init(load_model(f"models:/{kind}/1")) for kind in kinds}

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        _, kind, rest = scope["path"].split("/", 2)
        await apps[kind]({**scope, "path": f"/{rest}", "root_path": ""}, receive, send)

    uvicorn.run(dispatch, host="127.0.0.1", port=port, lifespan="off", log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
