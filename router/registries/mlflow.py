"""The registry on an MLflow server: the only place that knows how MLflow names things.

Every operation is harmless to repeat from its beginning, since what creates a thing looks for it first. So
after a failure a whole operation is tried again, never a single request in the middle of one.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from router.core.clock import Clock
from router.core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RegistryUnavailable,
    UnknownVersion,
)
from router.registries.base import ModelVersion, Run, RunStatus
from router.registries.mlflow_answers import (
    parse_aliases,
    parse_created_ms,
    parse_run,
    parse_version,
    quote,
    write_tags,
)
from router.registries.mlflow_rest import MlflowRest, collect_pages
from router.registries.model_files import (
    MAX_FILE_BYTES,
    MODEL_FILE,
    find_example_file,
    make_example_body,
    parse_model_file,
    parse_signature,
)
from router.registries.patience import Patience, bounded

TRAINING_TAG = "switchyard.training_id"
RUN_NAME_TAG = "mlflow.runName"
TAGS_PER_BATCH = 100  # MLflow's own limit
# How deep and how wide a run's artifacts are searched for models: a run may hold thousands of folders.
SEARCH_DEPTH = 3
SEARCH_FOLDERS = 100
# Of the version column in every database that MLflow supports; a larger number makes the server fail.
LARGEST_VERSION = 2**31 - 1


class MlflowRegistry:
    """The registry of the server at `tracking_uri`: http or https, with credentials inside if it wants any.

    Versions that a search finds carry no aliases, because MLflow's search leaves them out.
    """

    def __init__(self, tracking_uri: str, clock: Clock, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self._rest = MlflowRest(tracking_uri, self.patience)
        self._clock = clock
        # To look for a thing and to create it are two requests: one task at a time does both.
        self._creating = anyio.Lock()

    async def start(self) -> None:
        """Does not wait for the server, which may come later or be away for a while."""
        self._rest.open()

    async def close(self) -> None:
        await self._rest.close()

    def unavailable(self, reason: str) -> RegistryUnavailable:
        return self._rest.unavailable(reason)

    @bounded
    async def check(self) -> None:
        # MLflow's health page answers to any Host, so this has to be a call of the API.
        await self._rest.post("experiments/search", max_results=1)

    @bounded
    async def create_run(self, experiment: str, training_id: str, tags: dict[str, str]) -> str:
        async with self._creating:
            experiment_id = await self._ensure_experiment(experiment)
            found = await self._find_run(experiment_id, training_id)
            if found is not None:
                return found
            created = await self._rest.post(
                "runs/create",
                experiment_id=experiment_id,
                start_time=self._now_ms(),
                run_name=tags.get(RUN_NAME_TAG, training_id),
                tags=write_tags(tags | {TRAINING_TAG: training_id}),
            )
            return str(created["run"]["info"]["run_id"])

    @bounded
    async def finish_run(self, run_id: str, status: RunStatus, tags: dict[str, str]) -> None:
        if await self._read_run(run_id) is None:
            raise NotFound(f"MLflow has no run {run_id} (any more), so its end is recorded only here")
        entries = write_tags(tags)
        for start in range(0, len(entries), TAGS_PER_BATCH):
            batch = entries[start : start + TAGS_PER_BATCH]
            await self._rest.post("runs/log-batch", run_id=run_id, tags=batch)
        await self._rest.post("runs/update", run_id=run_id, status=status.value, end_time=self._now_ms())

    @bounded
    async def run(self, run_id: str) -> Run | None:
        found = await self._read_run(run_id)
        return None if found is None else parse_run(found)

    @bounded
    async def versions_of_run(self, run_id: str) -> list[ModelVersion]:
        return await self._search_versions(run_id)

    @bounded
    async def logged_models(self, run_id: str) -> list[str]:
        run = await self._read_run(run_id)
        if run is None:
            return []
        models = await self._find_logged_models(run_id, run["info"]["experiment_id"])
        models += await self._find_artifact_models(run_id)
        return [uri for _, uri in sorted(models)]

    @bounded
    async def register(self, name: str, run_id: str, model_uri: str) -> ModelVersion:
        async with self._creating:
            existing = [found for found in await self._search_versions(run_id) if found.name == name]
            if existing:
                return existing[-1]
            source = await self._resolve_source(run_id, model_uri)
            with suppress(Conflict):  # where the model exists, this becomes its next version
                await self._rest.post("registered-models/create", name=name)
            created = await self._rest.post("model-versions/create", name=name, run_id=run_id, **source)
            return parse_version(created["model_version"])

    @bounded
    async def version(self, name: str, ref: int | str) -> ModelVersion:
        if isinstance(ref, int) and not 0 < ref <= LARGEST_VERSION:
            raise UnknownVersion(f"model {name!r} has no version {ref} in MLflow")
        try:
            if isinstance(ref, int):
                found = await self._rest.get("model-versions/get", name=name, version=ref)
            else:
                found = await self._rest.get("registered-models/alias", name=name, alias=ref)
        except (NotFound, InvalidRequest) as error:  # to MLflow, an alias that is not there is invalid
            what = f"version {ref}" if isinstance(ref, int) else f"alias {ref!r}"
            raise UnknownVersion(f"model {name!r} has no {what} in MLflow") from error
        return parse_version(found["model_version"])

    @bounded
    async def set_version_tags(self, name: str, version: int, tags: dict[str, str]) -> None:
        where = {"name": name, "version": str(version)}
        try:
            # At once: a rollout waits for them, and each alone takes MLflow ten milliseconds. As a group:
            # what `asyncio.gather` starts keeps its connection for ever when who waits is cancelled.
            async with anyio.create_task_group() as group:
                for key, value in tags.items():
                    call = partial(self._rest.post, "model-versions/set-tag", **where, key=key, value=value)
                    group.start_soon(call)
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            if isinstance(first, NotFound):
                message = f"model {name!r} has no version {version} in MLflow"
                raise UnknownVersion(message) from first
            raise first from None

    @bounded
    async def aliases(self, name: str) -> dict[str, int]:
        try:
            found = await self._rest.get("registered-models/get", name=name)
        except NotFound:
            return {}
        return parse_aliases(found["registered_model"])

    @bounded
    async def set_alias(self, name: str, alias: str, version: int) -> None:
        try:
            await self._rest.post("registered-models/alias", name=name, alias=alias, version=str(version))
        except NotFound as error:
            raise UnknownVersion(f"model {name!r} has no version {version} in MLflow") from error

    @bounded
    async def delete_alias(self, name: str, alias: str) -> None:
        with suppress(NotFound):  # without the model there is no alias either
            await self._rest.delete("registered-models/alias", name=name, alias=alias)

    @bounded
    async def signature(self, name: str, version: int) -> dict[str, Any] | None:
        return parse_signature(await self._describe(name, version))

    @bounded
    async def input_example(self, name: str, version: int) -> bytes | None:
        described = await self._describe(name, version)
        path = find_example_file(described)
        if path is None:
            return None
        return make_example_body(described, await self._read_model_file(name, version, path))

    @bounded
    async def download(self, name: str, version: int, path: str) -> bytes:
        return await self._read_model_file(name, version, path)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)

    async def _ensure_experiment(self, name: str) -> str:
        """Id of the experiment; a trainer may be creating it at the same moment."""
        try:
            found = await self._rest.get("experiments/get-by-name", experiment_name=name)
        except NotFound:
            try:
                return str((await self._rest.post("experiments/create", name=name))["experiment_id"])
            except Conflict:
                found = await self._rest.get("experiments/get-by-name", experiment_name=name)
        experiment = found["experiment"]
        if experiment["lifecycle_stage"] != "active":
            raise InvalidRequest(
                f"the experiment {name!r} is deleted in MLflow, which keeps its name taken; no run was made",
                hint=f"`mlflow experiments restore -x {experiment['experiment_id']}`, or name another one",
            )
        return str(experiment["experiment_id"])

    async def _find_run(self, experiment_id: str, training_id: str) -> str | None:
        found = await self._rest.post(
            "runs/search",
            experiment_ids=[experiment_id],
            filter=f"tags.`{TRAINING_TAG}` = {quote(training_id)}",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        runs = found.get("runs", [])
        return str(runs[0]["info"]["run_id"]) if runs else None

    async def _read_run(self, run_id: str) -> dict[str, Any] | None:
        """A deleted run counts as none: MLflow still shows it, but lets nobody change it."""
        try:
            run: dict[str, Any] = (await self._rest.get("runs/get", run_id=run_id))["run"]
        except NotFound:
            return None
        return run if run["info"]["lifecycle_stage"] == "active" else None

    async def _find_logged_models(self, run_id: str, experiment_id: str) -> list[tuple[int, str]]:
        """What MLflow 3 logs, beside the run's artifacts: the complete ones, each with its epoch ms."""
        models = await collect_pages(
            self._rest.post,
            "logged-models/search",
            "models",
            experiment_ids=[experiment_id],
            filter=f"source_run_id = {quote(run_id)}",
        )
        return [
            (int(info["creation_timestamp_ms"]), f"models:/{info['model_id']}")
            for info in (model["info"] for model in models)
            if info["status"] == "LOGGED_MODEL_READY"
        ]

    async def _find_artifact_models(self, run_id: str) -> list[tuple[int, str]]:
        """What older clients log: a folder with an MLmodel file among the run's artifacts."""
        models: list[tuple[int, str]] = []
        folders = [""]
        for folder in folders:  # grows while it is walked
            files = await collect_pages(self._rest.get, "artifacts/list", "files", run_id=run_id, path=folder)
            model_file = f"{folder}/{MODEL_FILE}".lstrip("/")
            if any(file["path"] == model_file for file in files):
                where = {"run_id": run_id, "path": model_file}
                described = parse_model_file(
                    await self._rest.read_file("get-artifact", MAX_FILE_BYTES, **where)
                )
                models.append((parse_created_ms(described), f"runs:/{run_id}/{folder}"))
            elif len(folder.split("/")) < SEARCH_DEPTH:
                inner = [file["path"] for file in files if file.get("is_dir")]
                folders += inner[: SEARCH_FOLDERS - len(folders)]
        return models

    async def _search_versions(self, run_id: str) -> list[ModelVersion]:
        condition = f"run_id = {quote(run_id)}"
        found = await collect_pages(
            self._rest.get, "model-versions/search", "model_versions", filter=condition
        )
        return sorted(map(parse_version, found), key=lambda version: (version.name, version.version))

    async def _resolve_source(self, run_id: str, model_uri: str) -> dict[str, str]:
        """MLflow ties a version to a logged model by id, and to a run's artifacts by their real address."""
        scheme, _, rest = model_uri.partition(":/")
        if scheme == "models" and rest.startswith("m-"):
            # Asked first, since a version of a model that is not there makes the server fail with 500.
            await self._rest.get(f"logged-models/{rest}")
            return {"source": model_uri, "model_id": rest}
        if scheme != "runs":
            return {"source": model_uri}
        owner, _, path = rest.partition("/")
        run = await self._read_run(owner)
        if run is None:
            raise NotFound(f"MLflow has no run {owner}, so {model_uri} cannot be registered")
        return {"source": f"{run['info']['artifact_uri']}/{path}".rstrip("/")}

    async def _describe(self, name: str, version: int) -> dict[str, Any]:
        return parse_model_file(await self._read_model_file(name, version, MODEL_FILE))

    async def _read_model_file(self, name: str, version: int, path: str) -> bytes:
        """Through the server, which can read its artifact store whatever that is."""
        where = {"name": name, "version": str(version), "path": path}
        try:
            return await self._rest.read_file("model-versions/get-artifact", MAX_FILE_BYTES, **where)
        except NotFound as error:
            raise UnknownVersion(f"version {version} of model {name!r} has no file {path!r}") from error
