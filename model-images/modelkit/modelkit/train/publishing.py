"""Puts beside a logged model what a lean server looks for: compiled form, manifest, digests of all files.

Verdict, difference and sizes are told as metrics and tags, of the run and of the logged model.
"""

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import msgspec
from mlflow.models.model import ModelInfo
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

from modelkit.manifest import COMPILED_FOLDER, DIGESTS_FILE, GRAPH_FILE, MANIFEST_FILE, Digests, FileDigest
from modelkit.train.compiling import NotCompiled, compile_model
from modelkit.train.proving import Proof, gains_by_batches

_VERDICT_TAG = "modelkit.compiled"

log = logging.getLogger("modelkit.train")


def add_compiled_form(logged: ModelInfo, model: Any, proof: Proof, class_names: tuple[str, ...] = ()) -> None:
    with tempfile.TemporaryDirectory(prefix="logged-model-") as temporary:
        folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=temporary))
        (folder / REGISTERED_MODEL_META_FILE_NAME).unlink(
            missing_ok=True
        )  # the download's own, not the model's
        native_bytes = _size(folder)
        metrics = {"compiled.native_bytes": float(native_bytes)}
        verdict, reason = "proven", ""
        try:
            compiled = compile_model(model, logged.signature.inputs, proof, native_bytes)
        except NotCompiled as refused:
            verdict = reason = str(refused)
        else:
            (folder / COMPILED_FOLDER).mkdir()
            (folder / GRAPH_FILE).write_bytes(compiled.graph)
            (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(compiled.manifest))
            metrics["compiled.bytes"] = float(len(compiled.graph))
            metrics["compiled.max_difference"] = compiled.manifest.difference
            metrics["compiled.tolerance"] = compiled.manifest.tolerance
        log.info("compiled form: %s", verdict)
        classes = tuple(model.classes_.tolist()) if hasattr(model, "classes_") else ()
        _upload(logged.model_id, folder, Digests({}, reason, classes, class_names, gains_by_batches(proof)))
    mlflow.log_metrics(metrics, model_id=logged.model_id)
    mlflow.set_tag(_VERDICT_TAG, verdict)
    mlflow.set_logged_model_tags(logged.model_id, {_VERDICT_TAG: verdict})


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _upload(model_id: str, folder: Path, digests: Digests) -> None:
    """The compiled form first: who reads the digests finds all that they name."""
    client = mlflow.MlflowClient()
    if (folder / COMPILED_FOLDER).is_dir():
        client.log_model_artifacts(model_id, str(folder / COMPILED_FOLDER), COMPILED_FOLDER)
    files = {
        path.relative_to(folder).as_posix(): FileDigest(
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    path = folder / DIGESTS_FILE
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(digests, files=files)))
    client.log_model_artifact(model_id, str(path))
