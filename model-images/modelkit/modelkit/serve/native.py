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

from modelkit.serve.answers import Answer, Predict
from modelkit.serve.fetching import ModelFiles, ModelLoadError

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

_JSON = "application/json"

log = logging.getLogger("modelkit.serve")


def load_native(uri: str, files: ModelFiles | None, folder: Path) -> "PyFuncModel":
    """`folder` has to stay while the model is used: some models read files later.

    Without `files` MLflow's client downloads the model itself.
    """
    from mlflow import pyfunc
    from mlflow.exceptions import MlflowException

    try:
        where = uri if files is None else str(files.assemble(folder))
        model: PyFuncModel = pyfunc.load_model(where, dst_path=str(folder) if files is None else None)
    except (MlflowException, ImportError, OSError) as error:
        raise ModelLoadError(f"{uri} cannot be loaded: {error}") from error
    if model.loader_module == "mlflow.sklearn":
        _use_one_thread(model)
    return model


def _use_one_thread(model: "PyFuncModel") -> None:
    """Requests already run beside each other; a pool of threads inside each costs more than it gives.

    A forest saved with `n_jobs=-1` answers single rows 2.4 times slower than with 1.
    """
    estimator = model.get_raw_model()
    widths = [key for key in estimator.get_params() if key == "n_jobs" or key.endswith("__n_jobs")]
    estimator.set_params(**dict.fromkeys(widths, 1))


class NativeWhenNeeded:
    """The `Predict` of a native model that is loaded by the first request for it."""

    def __init__(self, uri: str, files: ModelFiles, folder: Path) -> None:
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
                self._predict = make_predict(self._load())
                log.info(
                    "native model loaded in %.2f s, for a request that needs it", time.monotonic() - started
                )
            return self._predict
