"""A registry in memory, with what MLflow does and no server: for tests, where a test plays the trainer.

Ids are counted, so that a test can name what will be made.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.core.errors import InvalidRequest, NotFound, SwitchyardError, UnknownVersion
from router.registries.base import ModelVersion, Run, RunDataset, RunStatus
from router.registries.model_files import (
    MAX_FILE_BYTES,
    MODEL_FILE,
    find_example_file,
    make_example_body,
    parse_model_file,
    parse_signature,
)

TRAINING_TAG = "switchyard.training_id"
EXAMPLE_FILE = "serving_input_example.json"
LATEST = "latest"  # MLflow answers to this name with the highest version and lets nobody set it


class MemoryRegistry:
    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._runs_made = 0
        self._runs_of_trainings: dict[tuple[str, str], str] = {}
        self._deleted_experiments: set[str] = set()
        self._logged: dict[str, list[str]] = {}  # run id -> model URIs, oldest first
        self._files: dict[str, dict[str, bytes]] = {}  # model URI -> path -> content
        self._versions: dict[str, dict[int, ModelVersion]] = {}
        self._sources: dict[tuple[str, int], str] = {}
        self._aliases: dict[str, dict[str, int]] = {}
        self._failure: SwitchyardError | None = None

    # --- what a test does to it -----------------------------------------------------------------------

    def fail_with(self, error: SwitchyardError | None) -> None:
        """Every call of the port raises this, until `fail_with(None)`."""
        self._failure = error

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        run = self._runs[run_id]
        self._runs[run_id] = replace(run, metrics=run.metrics | dict(metrics))

    def log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        run = self._runs[run_id]
        self._runs[run_id] = replace(run, parameters=run.parameters | dict(parameters))

    def log_dataset(self, run_id: str, dataset: RunDataset) -> None:
        run = self._runs[run_id]
        self._runs[run_id] = replace(run, datasets=(*run.datasets, dataset))

    def log_model(
        self,
        run_id: str,
        *,
        signature: Mapping[str, Any] | None = None,
        input_example: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> str:
        """As a trainer would, without registering it; returns its URI."""
        uri = f"models:/m-{len(self._files) + 1:032x}"
        described: dict[str, Any] = {"flavors": {}}
        content = dict(files or {})
        if signature is not None:
            described["signature"] = {
                part: value if value is None else json.dumps(value) for part, value in signature.items()
            }
        if input_example is not None:
            described["saved_input_example_info"] = {"serving_input_path": EXAMPLE_FILE}
            content[EXAMPLE_FILE] = input_example
        # JSON is YAML: the same reader takes it.
        self._files[uri] = {MODEL_FILE: json.dumps(described).encode()} | content
        self._logged.setdefault(run_id, []).append(uri)
        return uri

    def add_version(
        self,
        name: str,
        run_id: str | None = None,
        *,
        signature: Mapping[str, Any] | None = None,
        input_example: bytes | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> ModelVersion:
        """A logged and registered model, as a trainer leaves it."""
        uri = self.log_model(run_id or "", signature=signature, input_example=input_example, files=files)
        return self._add_version(name, run_id, uri)

    def delete_version(self, name: str, version: int) -> None:
        """As MLflow: the aliases that point at it go with it."""
        del self._versions[name][version]
        aliases = self._aliases.get(name, {})
        self._aliases[name] = {alias: target for alias, target in aliases.items() if target != version}

    def delete_run(self, run_id: str) -> None:
        del self._runs[run_id]
        self._runs_of_trainings = {
            key: value for key, value in self._runs_of_trainings.items() if value != run_id
        }

    def delete_experiment(self, name: str) -> None:
        self._deleted_experiments.add(name)

    # --- the port ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def check(self) -> None:
        self._answer()

    async def create_run(self, experiment: str, training_id: str, tags: dict[str, str]) -> str:
        self._answer()
        if experiment in self._deleted_experiments:
            raise InvalidRequest(f"the experiment {experiment!r} is deleted; no run was made")
        key = (experiment, training_id)
        if key not in self._runs_of_trainings:
            self._runs_made += 1
            run_id = f"{self._runs_made:032x}"
            self._runs[run_id] = Run(run_id, RunStatus.RUNNING, tags=tags | {TRAINING_TAG: training_id})
            self._runs_of_trainings[key] = run_id
        return self._runs_of_trainings[key]

    async def finish_run(self, run_id: str, status: RunStatus, tags: dict[str, str]) -> None:
        self._answer()
        if run_id not in self._runs:
            raise NotFound(f"the registry has no run {run_id} (any more)")
        run = self._runs[run_id]
        self._runs[run_id] = replace(run, status=status, tags=run.tags | tags)

    async def run(self, run_id: str) -> Run | None:
        self._answer()
        return self._runs.get(run_id)

    async def versions_of_run(self, run_id: str) -> list[ModelVersion]:
        self._answer()
        return [
            self._versions[name][number]  # like MLflow's search, without aliases
            for name in sorted(self._versions)
            for number in sorted(self._versions[name])
            if self._versions[name][number].run_id == run_id
        ]

    async def logged_models(self, run_id: str) -> list[str]:
        self._answer()
        return list(self._logged.get(run_id, [])) if run_id in self._runs else []

    async def register(self, name: str, run_id: str, model_uri: str) -> ModelVersion:
        existing = [version for version in await self.versions_of_run(run_id) if version.name == name]
        if existing:
            return existing[-1]
        if model_uri not in self._files:
            raise NotFound(f"the registry has no logged model {model_uri}")
        return self._add_version(name, run_id, model_uri)

    async def version(self, name: str, ref: int | str) -> ModelVersion:
        self._answer()
        return self._find_version(name, ref)

    async def set_version_tags(self, name: str, version: int, tags: dict[str, str]) -> None:
        self._answer()
        self._find_version(name, version)
        found = self._versions[name][version]
        self._versions[name][version] = replace(found, tags=found.tags | tags)

    async def aliases(self, name: str) -> dict[str, int]:
        self._answer()
        return dict(self._aliases.get(name, {}))

    async def set_alias(self, name: str, alias: str, version: int) -> None:
        self._answer()
        if alias.lower() == LATEST:
            raise InvalidRequest("'latest' is reserved: it always names the highest version")
        self._find_version(name, version)
        self._aliases.setdefault(name, {})[alias] = version

    async def delete_alias(self, name: str, alias: str) -> None:
        self._answer()
        self._aliases.get(name, {}).pop(alias, None)

    async def signature(self, name: str, version: int) -> dict[str, Any] | None:
        return parse_signature(parse_model_file(await self.download(name, version, MODEL_FILE)))

    async def input_example(self, name: str, version: int) -> bytes | None:
        described = parse_model_file(await self.download(name, version, MODEL_FILE))
        path = find_example_file(described)
        if path is None:
            return None
        return make_example_body(described, await self.download(name, version, path))

    async def download(self, name: str, version: int, path: str) -> bytes:
        self._answer()
        self._find_version(name, version)
        files = self._files[self._sources[name, version]]
        if path not in files:
            raise UnknownVersion(f"version {version} of model {name!r} has no file {path!r}")
        if len(files[path]) > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return files[path]

    def _answer(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _add_version(self, name: str, run_id: str | None, uri: str) -> ModelVersion:
        versions = self._versions.setdefault(name, {})
        number = max(versions, default=0) + 1
        versions[number] = ModelVersion(name, number, run_id)
        self._sources[name, number] = uri
        return versions[number]

    def _find_version(self, name: str, ref: int | str) -> ModelVersion:
        versions = self._versions.get(name, {})
        aliases = self._aliases.get(name, {})
        number: int | None = ref if isinstance(ref, int) else aliases.get(ref)
        if isinstance(ref, str) and ref.lower() == LATEST:
            number = max(versions, default=None)
        if number is None or number not in versions:
            what = f"version {ref}" if isinstance(ref, int) else f"alias {ref!r}"
            raise UnknownVersion(f"model {name!r} has no {what}")
        pointing = sorted(alias for alias, target in aliases.items() if target == number)
        return replace(versions[number], aliases=tuple(pointing))
