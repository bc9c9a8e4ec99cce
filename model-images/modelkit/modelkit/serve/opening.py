"""Decides how a model is served: compiled where that was proven, else by MLflow's own code; and says why."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.manifest import GRAPH_FILE, MANIFEST_FILE, Manifest
from modelkit.serve.answers import About, CountRows, Lean, Limits, Predict
from modelkit.serve.artifacts import ArtifactService, NotDirect, Source, make_credentials, show_address
from modelkit.serve.batching import Permits, hold
from modelkit.serve.cache import Cache
from modelkit.serve.fetching import ModelFiles, ModelLoadError, fetch_model, find_folder, open_local
from modelkit.serve.native import NativeWhenNeeded, load_native, load_predict
from modelkit.serve.telemetry import Telemetry
from modelkit.settings import ServeSettings, SettingsError

if TYPE_CHECKING:
    from modelkit.compiled import CompiledModel

_LONGEST_INLINE = 0.001  # seconds of prediction that the event loop may be held for
_MOST_INLINE = 16 * 2**10  # bytes; parsing takes time, too
_MEASURED_ROWS = 64
_THREADS_TOGETHER = 32
_BYTES_PER_CELL = 2  # the least that a cell takes in JSON: a digit and a comma
_BYTES_PER_NAME = len('"":[],')  # beside itself

log = logging.getLogger("modelkit.serve")


@dataclass(frozen=True)
class Served:
    predict: Predict
    about: About
    limits: Limits
    lean: Lean | None = None


def open_model(settings: ServeSettings, folder: Path, telemetry: Telemetry) -> Served:
    """`folder` is the server's own, for as long as it runs. Raises ModelLoadError."""
    uri = settings.serve_model_uri
    if settings.serve_workers > 1 and "@" in uri:
        raise SettingsError(
            f"SERVE_MODEL_URI={uri} names an alias, which may move: several workers need a version"
        )
    count_rows = telemetry.count_rows
    files, reason = _find_files(settings, folder)
    model = folder / "native"
    model.mkdir()
    if files is not None and MANIFEST_FILE in files.digests.files:
        try:
            return _open_compiled(settings, files, model, count_rows)
        except ModelLoadError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the graph's runtime raises, the native model is there
            reason = f"its compiled form cannot be used: {type(error).__name__}: {error}"
            log.warning("%s", reason)
    elif files is not None:
        reason = files.digests.native
    native = load_native(uri, files, model)
    from modelkit.serve.frames import make_lean_native
    from modelkit.serve.protocol import make_predict

    schema = native.metadata.get_input_schema()
    columns = tuple(schema.input_names()) if schema is not None and schema.has_input_names() else ()
    together = files is not None and files.digests.together
    permits = Permits(settings.serve_threads) if together else None
    lean = make_lean_native(native, count_rows, permits)
    if lean is not None and together:
        reason += "; requests that come together are answered together"
    about = _describe(settings, files, "native", reason, columns)
    limits = _set_limits(settings)
    predict = make_predict(native, count_rows)
    if permits is not None:  # a thread that waits for its turn costs nothing
        limits = replace(limits, turns=_THREADS_TOGETHER)
        predict = hold(permits, predict)
    return Served(predict, about, limits, lean)


def _find_files(settings: ServeSettings, folder: Path) -> tuple[ModelFiles | None, str]:
    """None, and why, where only MLflow's client can get the model."""
    uri = settings.serve_model_uri
    if settings.model_served == "mlflow" and find_folder(uri).exists():
        raise ModelLoadError(f"{uri} cannot be loaded: MODEL_SERVED=mlflow, and it is on this disk")
    if (local := open_local(uri)) is not None:
        return local, ""
    if settings.model_served == "local":
        raise ModelLoadError(f"{uri} cannot be loaded: MODEL_SERVED=local, and it is no model's folder")
    mlflow = settings.mlflow_tracking_uri or settings.mlflow_server_host
    if mlflow is None:
        raise SettingsError("MLFLOW_TRACKING_URI is not set, and SERVE_MODEL_URI is no folder")
    credentials = make_credentials(
        settings.mlflow_tracking_username, settings.mlflow_tracking_password, settings.mlflow_tracking_token
    )
    try:
        service = ArtifactService(mlflow, credentials)
        return _fetch(settings, service, folder), ""
    except NotDirect as error:
        log.info("fetched by MLflow's client: %s", error)
        os.environ["MLFLOW_TRACKING_URI"] = mlflow  # where that client looks
        return None, str(error)
    except OSError as error:
        raise ModelLoadError(f"{uri} cannot be loaded: {error}") from error


def _fetch(settings: ServeSettings, service: ArtifactService, folder: Path) -> ModelFiles:
    uri, shared, own = settings.serve_model_uri, settings.serve_cache_dir, folder / "cache"
    if shared is not None:
        try:
            shared.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelLoadError(f"SERVE_CACHE_DIR={shared}: {error}") from error
        try:
            return fetch_model(uri, service, Cache(shared), own)
        except OSError as error:  # it is full, or another server has spoilt it
            log.warning("SERVE_CACHE_DIR=%s: %s; fetched without it", shared, error)
    return fetch_model(uri, service, Cache(own), own)


def _open_compiled(settings: ServeSettings, files: ModelFiles, native: Path, count_rows: CountRows) -> Served:
    """`native` is where the native model is put by the first request for it."""
    import msgspec

    from modelkit.compiled import CompiledModel
    from modelkit.serve.lean import LeanProtocol

    manifest = msgspec.json.decode(files.read(MANIFEST_FILE), type=Manifest)
    compiled = CompiledModel(files.read(GRAPH_FILE), manifest)
    reason = f"proven on {manifest.rows} rows to {manifest.difference:.2g}, {manifest.precision}"
    columns = tuple(column.name for column in manifest.columns)
    return Served(
        NativeWhenNeeded(
            partial(load_predict, settings.serve_model_uri, files, native, count_rows),
            settings.mlflow_scoring_server_request_timeout / 2,
        ),
        _describe(settings, files, "compiled", reason, columns),
        _set_limits(settings, compiled),
        LeanProtocol(compiled, manifest.columns, manifest.precision, count_rows),
    )


def _describe(
    settings: ServeSettings,
    files: ModelFiles | None,
    path: str,
    reason: str,
    columns: tuple[str, ...] = (),
) -> About:
    source = Source("") if files is None else files.source
    mlflow = settings.mlflow_tracking_uri or settings.mlflow_server_host
    return About(
        mlflow_version=version("mlflow-skinny"),
        uri=settings.serve_model_uri,
        name=settings.model_name or source.name,
        version=settings.model_version or source.version,
        run_id=settings.mlflow_run_id or source.run_id,
        mlflow_uri=None if mlflow is None else show_address(mlflow),
        path=path,
        reason=reason,
        classes=() if files is None else files.digests.classes,
        class_names=() if files is None else files.digests.class_names,
        columns=columns,
    )


def _set_limits(settings: ServeSettings, compiled: "CompiledModel | None" = None) -> Limits:
    return Limits(
        request_seconds=settings.mlflow_scoring_server_request_timeout,
        body_bytes=settings.serve_max_body_bytes,
        waiting=settings.serve_max_waiting,
        threads=settings.serve_threads,
        inline_bytes=0 if compiled is None else _measure_inline(compiled),
    )


def _measure_inline(compiled: "CompiledModel") -> int:
    """The size of a body that the event loop answers in a millisecond at most, by what a row takes here."""
    columns = compiled.manifest.columns
    stand_ins = [(column.known or ("",))[0] if column.type == "string" else 0 for column in columns]
    rows = [[value] * _MEASURED_ROWS for value in stand_ins]
    compiled.answer_columns(rows)  # the first allocates
    started = time.perf_counter()
    compiled.answer_columns(rows)
    per_row = (time.perf_counter() - started) / _MEASURED_ROWS
    return bound_inline([column.name for column in columns], per_row)


def bound_inline(names: Sequence[str], seconds_per_row: float) -> int:
    names_bytes = sum(len(name.encode()) + _BYTES_PER_NAME for name in names)  # which any body has
    row_bytes = len(names) * _BYTES_PER_CELL
    return min(_MOST_INLINE, names_bytes + int(_LONGEST_INLINE / seconds_per_row * row_bytes))
