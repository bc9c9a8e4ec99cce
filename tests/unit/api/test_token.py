"""A router with a token answers nobody without it, and says what is missing."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from router.api.app import make_app
from tests.unit.engine.yard import Yard

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse-battery-staple"  # noqa: S105 - of the test's own router
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


async def ask(tmp_path: Path, method: str, path: str, headers: Mapping[str, str | bytes]) -> httpx.Response:
    async with Yard(tmp_path).run() as engine:
        transport = httpx.ASGITransport(make_app(engine, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.request(
                method, path, headers=[(name.encode(), text_of(value)) for name, value in headers.items()]
            )


def text_of(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer "},
        {"Authorization": b"Bearer \xe9"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/admin/rollback"),
        ("POST", "//admin/rollback"),
        ("GET", "/status"),
        ("GET", "/docs"),
        ("GET", "/healthz/../status"),
        ("GET", "/no-such-page"),
    ],
)
async def test_without_the_token_no_call_is_answered(
    tmp_path: Path, given: dict[str, str | bytes], method: str, path: str
) -> None:
    answer = await ask(tmp_path, method, path, given)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "token_needed"
    assert "SWITCHYARD_TOKEN" in answer.json()["error"]["hint"]


async def test_with_the_token_calls_are_answered(tmp_path: Path) -> None:
    assert (await ask(tmp_path, "GET", "/status", RIGHT)).status_code == 200
    assert (await ask(tmp_path, "POST", "/admin/rollback", RIGHT)).status_code == 409


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "router", "models.example"]
)
async def test_without_a_token_the_router_answers_to_its_own_names(tmp_path: Path, host: str) -> None:
    assert (await call_by(tmp_path, host, None)).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "evil.example."]
)
async def test_a_page_that_has_rebound_its_name_gets_nothing(tmp_path: Path, host: str) -> None:
    answer = await call_by(tmp_path, host, None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
    assert (await call_by(tmp_path, host, TOKEN)).status_code == 200


async def call_by(tmp_path: Path, host: str, token: str | None) -> httpx.Response:
    async with Yard(tmp_path).run() as engine:
        transport = httpx.ASGITransport(make_app(engine, token, {"Models.Example"}))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.get("/status", headers={"Host": host, **RIGHT})


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_health_checks_need_no_token(tmp_path: Path, path: str) -> None:
    assert (await ask(tmp_path, "GET", path, {})).status_code == 200
