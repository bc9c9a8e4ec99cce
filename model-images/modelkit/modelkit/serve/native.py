"""The native model behind MLflow's own code: any flavour, any request, at the price of MLflow's imports.

Nothing here is imported before it is needed, which for a compiled model is the first unusual request.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
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


def load_predict(uri: str, files: ModelFiles, folder: Path, count_rows: CountRows) -> Predict:
    from modelkit.serve.protocol import make_predict

    return make_predict(load_native(uri, files, folder), count_rows)


class NativeWhenNeeded:
    """The `Predict` of a native model that is loaded by the first request for it."""

    def __init__(self, load: Callable[[], Predict], longest_wait: float) -> None:
        """`longest_wait` is in seconds, and of a request that comes while the model is loaded for another.

        Shorter than a request may take, so that its thread is not held when it has been given up on.
        """
        self._load, self._longest_wait = load, longest_wait
        self._loading = threading.Lock()
        self._predict: Predict | None = None

    def __call__(self, body: bytes, content_type: str | None) -> Answer:
        predict = self._predict
        if predict is None:
            if not self._loading.acquire(timeout=self._longest_wait):
                return _tell(503, "TEMPORARILY_UNAVAILABLE", "the native model is being loaded: try again")
            try:
                predict = self._predict = self._load_once()
            except ModelLoadError as error:
                log.exception("a request that the compiled model leaves cannot be answered")
                return _tell(500, "INTERNAL_ERROR", str(error))
            finally:
                self._loading.release()
        return predict(body, content_type)

    def _load_once(self) -> Predict:
        if self._predict is not None:
            return self._predict
        started = time.monotonic()
        predict = self._load()
        log.info("native model loaded in %.2f s, for a request that needs it", time.monotonic() - started)
        return predict


def _tell(status: int, code: str, message: str) -> Answer:
    return Answer(status, json.dumps({"error_code": code, "message": message}).encode(), _JSON)
