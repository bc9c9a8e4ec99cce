"""The HTTP of the reference server, around a prediction that needs no model."""

import threading

import httpx
import pytest

from modelkit.serve.answers import Answer, Predict
from modelkit.serve.app import make_app


def echo(body: bytes, content_type: str | None) -> Answer:
    return Answer(200, f"{content_type} {body.decode()}".encode(), "text/plain")


def connect(predict: Predict = echo, request_timeout: float = 60) -> httpx.AsyncClient:
    app = make_app(predict, version="3.0.0", request_timeout=request_timeout)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model")


@pytest.mark.parametrize("path", ["/ping", "/health"])
async def test_a_running_server_says_so(path: str) -> None:
    async with connect() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.text) == (200, "\n")
    assert answer.headers["content-type"] == "application/json"


async def test_the_version_is_mlflows() -> None:
    async with connect() as client:
        assert (await client.get("/version")).text == "3.0.0"


async def test_body_and_content_type_reach_the_protocol_as_they_came() -> None:
    async with connect() as client:
        answer = await client.post("/invocations", content="{", headers={"content-type": "text/x; y=z"})
    assert answer.text == "text/x; y=z {"


async def test_a_request_without_a_content_type_reaches_the_protocol_too() -> None:
    async with connect() as client:
        assert (await client.post("/invocations", content=b"{}")).text == "None {}"


async def test_status_and_type_of_an_answer_are_the_protocols() -> None:
    async with connect(lambda _body, _type: Answer(415, b"no", "text/csv")) as client:
        answer = await client.post("/invocations", content=b"")
    assert (answer.status_code, answer.content) == (415, b"no")
    assert answer.headers["content-type"].startswith("text/csv")


async def test_a_prediction_that_takes_too_long_is_answered_with_504() -> None:
    release = threading.Event()

    def wait(_body: bytes, _type: str | None) -> Answer:
        release.wait()
        return Answer(200, b"late", "text/plain")

    async with connect(wait, request_timeout=0.01) as client:
        answer = await client.post("/invocations", content=b"")
    release.set()
    assert (answer.status_code, answer.text) == (504, "Request processing time exceeded limit")


async def test_an_unknown_path_and_a_wrong_method_are_answered_in_json() -> None:
    async with connect() as client:
        unknown = await client.get("/elsewhere")
        wrong = await client.get("/invocations")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert "POST" in wrong.headers["allow"]
