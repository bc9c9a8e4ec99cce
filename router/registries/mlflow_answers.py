"""MLflow's JSON, read into the port's own types and written from them."""

from datetime import UTC, datetime
from typing import Any

from router.core.errors import InvalidRequest
from router.registries.base import ModelVersion, Run, RunDataset, RunStatus

CONTEXT_TAG = "mlflow.data.context"  # of a run's input: what the data was used for


def parse_run(run: dict[str, Any]) -> Run:
    data = run.get("data", {})
    status = run["info"]["status"]
    return Run(
        run_id=run["info"]["run_id"],
        # MLflow also has SCHEDULED: such a run has not ended, and that is all that counts here.
        status=RunStatus(status) if status in RunStatus.__members__ else RunStatus.RUNNING,
        metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])},
        parameters={parameter["key"]: parameter["value"] for parameter in data.get("params", [])},
        tags=_parse_tags(data),
        datasets=tuple(map(_parse_dataset, run.get("inputs", {}).get("dataset_inputs", []))),
    )


def parse_version(found: dict[str, Any]) -> ModelVersion:
    return ModelVersion(
        name=found["name"],
        version=int(found["version"]),
        run_id=found.get("run_id") or None,
        tags=_parse_tags(found),
        aliases=tuple(sorted(found.get("aliases", []))),
    )


def parse_aliases(model: dict[str, Any]) -> dict[str, int]:
    return {entry["alias"]: int(entry["version"]) for entry in model.get("aliases", [])}


def write_tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def quote(value: str) -> str:
    """For MLflow's filter language, which has no escapes: what holds a quote is no id of anything."""
    if "'" in value:
        raise InvalidRequest(f"{value!r} is not an id")
    return f"'{value}'"


def parse_created_ms(described: dict[str, Any]) -> int:
    """Epoch milliseconds of an MLmodel file's `utc_time_created`; 0 where it does not say."""
    try:
        created = datetime.fromisoformat(str(described.get("utc_time_created")))
    except ValueError:
        return 0
    return int(created.replace(tzinfo=UTC).timestamp() * 1000)


def _parse_dataset(found: dict[str, Any]) -> RunDataset:
    dataset = found["dataset"]
    return RunDataset(
        name=dataset["name"],
        digest=dataset["digest"],
        context=_parse_tags(found).get(CONTEXT_TAG),
        source_type=dataset.get("source_type"),
        source=dataset.get("source"),
    )


def _parse_tags(found: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
