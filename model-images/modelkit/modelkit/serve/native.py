"""The native model behind MLflow's own code: any flavour, any request, at the price of MLflow's imports.

Nothing here is imported before it is needed, which for a compiled model is the first unusual request.
"""

import json
import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.serve.answers import Answer, CountRows, Predict
from modelkit.serve.fetching import ModelFiles, ModelLoadError
from modelkit.serve.one_thread import keep_to_one_thread

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_JSON = "application/json"

log = logging.getLogger("modelkit.serve")


def load_native(uri: str, files: ModelFiles | None, folder: Path) -> "PyFuncModel":
    """`folder` has to stay while the model is used: some models read files later.

    Without `files` MLflow's client downloads the model itself.
    """
    from mlflow import artifacts, models, pyfunc

    try:
        if files is None:
            where = artifacts.download_artifacts(uri, dst_path=str(folder))
        else:
            where = str(files.assemble(folder))
        if models.Model.load(where).flavors[pyfunc.FLAVOR_NAME][pyfunc.MAIN] == "mlflow.sklearn":
            keep_to_one_thread()
        model: PyFuncModel = pyfunc.load_model(where)
    except ModelLoadError:
        raise
    except Exception as error:  # a model's own code runs as it is unpickled: it may raise anything
        raise ModelLoadError(f"{uri} cannot be loaded: {type(error).__name__}: {error}") from error
    return model


class NativeWhenNeeded:
    """The `Predict` of a native model that is loaded by the first request for it."""

    def __init__(self, uri: str, files: ModelFiles, folder: Path, count_rows: CountRows) -> None:
        self._count_rows = count_rows
        self._load = partial(load_native, uri, files, folder)
        self._loading = threading.Lock()
        self._predict: Predict | None = None

    def __call__(self, body: bytes, content_type: str | None) -> Answer:
        try:
            predict = self._predict or self._make()
        except ModelLoadError as error:
            log.exception("a request that the compiled model leaves cannot be answered")
            told = {"error_code": "INTERNAL_ERROR", "message": str(error)}
            return Answer(500, json.dumps(told).encode(), _JSON)
        return predict(body, content_type)

    def _make(self) -> Predict:
        from modelkit.serve.protocol import make_predict

        with self._loading:  # requests that come meanwhile wait for the same
            if self._predict is None:
                started = time.monotonic()
                self._predict = make_predict(self._load(), self._count_rows)
                log.info(
                    "native model loaded in %.2f s, for a request that needs it", time.monotonic() - started
                )
            return self._predict
