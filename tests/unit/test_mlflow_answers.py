"""MLflow's JSON, including what its own server seldom sends."""

from typing import Any

import pytest

from router.core.errors import InvalidRequest
from router.registries.base import RunStatus
from router.registries.mlflow_answers import parse_created_ms, parse_run, parse_version, quote
from router.registries.mlflow_rest import collect_pages


def test_a_run_that_is_only_scheduled_has_not_ended() -> None:
    assert parse_run({"info": {"run_id": "r", "status": "SCHEDULED"}}).status is RunStatus.RUNNING


def test_a_version_without_a_run_belongs_to_none() -> None:
    version = parse_version({"name": "M", "version": "12", "run_id": "", "aliases": ["b", "a"]})
    assert (version.version, version.run_id, version.aliases) == (12, None, ("a", "b"))


def test_a_tag_without_a_value_is_empty() -> None:
    assert parse_version({"name": "M", "version": "1", "tags": [{"key": "k"}]}).tags == {"k": ""}


def test_an_id_with_a_quote_cannot_widen_a_search() -> None:
    with pytest.raises(InvalidRequest):
        quote("x' OR run_id != '")


def test_a_model_file_says_when_it_was_made_in_utc() -> None:
    assert parse_created_ms({"utc_time_created": "1970-01-01 00:00:01.500000"}) == 1500
    assert parse_created_ms({"utc_time_created": "yesterday"}) == 0
    assert parse_created_ms({}) == 0


@pytest.mark.anyio
async def test_a_search_reads_all_pages() -> None:
    pages: dict[str | None, dict[str, Any]] = {
        None: {"models": [{"n": 1}], "next_page_token": "two"},
        "two": {"next_page_token": "three"},
        "three": {"models": [{"n": 2}, {"n": 3}]},
    }

    async def answer(endpoint: str, **query: Any) -> dict[str, Any]:
        assert (endpoint, query["filter"]) == ("search", "f")
        return pages[query.get("page_token")]

    assert await collect_pages(answer, "search", "models", filter="f") == [{"n": 1}, {"n": 2}, {"n": 3}]
