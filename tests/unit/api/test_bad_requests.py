"""Calls that make no sense: what they get, and that they start nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.api.calls import calling
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        ("/admin/train/rose", {}, 404, "rose"),
        ("/admin/train/iris", {"image_key": "gpu"}, 400, "gpu"),
        ("/admin/train/iris", {"wait_seconds": -1}, 422, "wait_seconds"),
        ("/admin/train/iris", {"wait_seconds": 86_401}, 422, "wait_seconds"),
        ("/admin/train/iris", {"wait": 1}, 422, "body.wait"),
        ("/admin/train/iris", {"parameters": {"PATH": "/bin"}}, 422, "parameters.PATH"),
        ("/admin/train/iris", {"parameters": {"A": [1]}}, 422, "parameters.A"),
        ("/admin/train/iris", {"parameters": {"A": "x\ny"}}, 422, "parameters.A"),
        ("/admin/train/..%2f..%2fetc", {}, 422, "trainer"),
        ("/admin/train/%2e%2e", {}, 422, "trainer"),
        ("/admin/train/a%00b", {}, 422, "trainer"),
        ("/admin/train/a%0ab", {}, 422, "trainer"),
        ("/admin/roll", {"name": "Iris", "ref": "latest"}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": 0}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": 1.5}, 422, "ref"),
        ("/admin/roll", {"name": "Iris", "ref": True}, 422, "ref"),
        ("/admin/roll", {"name": "../Iris", "ref": 1}, 422, "name"),
        ("/admin/roll", {"name": "Iris\n", "ref": 1}, 422, "name"),
        ("/admin/roll", {"name": "Iris", "ref": 99}, 404, "99"),
        ("/admin/roll", {"name": "Iris", "ref": "@nobody"}, 404, "nobody"),
        ("/admin/roll", {"name": "Iris", "ref": 1, "wait_ready_seconds": 901}, 422, "wait_ready_seconds"),
        ("/admin/roll", {"name": "Iris", "ref": 1, "wait_ready_seconds": 0}, 422, "wait_ready_seconds"),
        ("/admin/roll", {"name": "Iris"}, 422, "ref"),
        ("/admin/rollback", {"endpoint": "nowhere"}, 404, "nowhere"),
        ("/admin/rollback?endpoint=fraud", None, 422, "parameter endpoint is unknown: this call has none"),
        ("/admin/train/iris?wait_seconds=0", {}, 422, "goes into its body"),
    ],
)
async def test_a_bad_request_is_refused_and_starts_nothing(
    yard: Yard, path: str, body: dict[str, object] | None, status: int, named: str
) -> None:
    async with calling(yard) as (client, _):
        answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert named in error["message"] + str(error["hint"])
        assert answer.json()["detail"]
        assert yard.runtime.launched == []


async def test_parameters_that_a_url_may_have_are_told_and_health_checks_may_have_any(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        answer = await client.delete("/admin/endpoints/fraud?forse=true")
        assert answer.status_code == 422
        assert "forse is unknown: this call has force, reason, wait_seconds" in answer.text
        assert (await client.get("/status?endpoint=default")).status_code == 200
        assert (await client.get("/canary-status?endpoint=fraud")).status_code == 422
        assert (await client.get("/healthz?now=1")).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"wait_seconds": NaN}', b"[]"])
async def test_a_body_that_is_no_json_object_is_a_client_error(yard: Yard, content: bytes) -> None:
    async with calling(yard) as (client, _):
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/admin/train/iris", content=content, headers=headers)
        assert answer.status_code in {400, 422}
        assert answer.json()["error"]["code"]


async def test_a_body_that_is_not_declared_as_json_is_told_the_header_that_it_lacks(yard: Yard) -> None:
    async with calling(yard) as (client, _):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await client.post("/admin/train/iris", content=b'{"wait_seconds": 0}', headers=headers)
        assert answer.status_code == 422
        assert "Content-Type: application/json" in answer.json()["error"]["hint"]


async def test_a_body_over_one_mebibyte_is_413_with_and_without_a_declared_length(yard: Yard) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    async with calling(yard) as (client, _):
        assert (await client.post("/admin/roll", content=b" " * 1_100_000)).status_code == 413
        answer = await client.post("/admin/roll", content=stream())
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_page_of_another_site_cannot_make_a_browser_send_commands(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with calling(yard) as (client, engine):
        await yard.roll(engine, first)
        await yard.roll(engine, second)
        for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await client.post("/admin/rollback", headers=headers)).status_code == 403
        assert await yard.served_version() == second
        assert (
            await client.post("/admin/rollback", headers={"Origin": "http://localhost:8000"})
        ).status_code == 200
