"""The HTTP of the reference server, around a prediction that needs no model."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from modelkit.serve.answers import About, Answer, Limits, Predict
from modelkit.serve.app import App
from modelkit.serve.telemetry import Telemetry


def echo(body: bytes, content_type: str | None) -> Answer:
    return Answer(200, f"{content_type} {body.decode()}".encode(), "text/plain")


def connect(predict: Predict = echo, request_timeout: float = 60) -> httpx.AsyncClient:
    app = App(predict, About("3.0.0"), Limits(request_seconds=request_timeout))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model")


async def test_a_running_server_says_so() -> None:
    async with connect() as client:
        answer = await client.get("/ping")
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


async def test_a_body_that_never_begins_is_answered_with_408_and_who_gives_up_is_not() -> None:
    app = App(echo, About("3.0.0"), Limits(request_seconds=0.05))
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": []}
    told: list[int] = []

    async def send(message: Any) -> None:
        told.append(message.get("status", 0))

    async def receive() -> Any:
        await anyio.sleep_forever()

    patient = [asyncio.create_task(app(scope, receive, send)) for _ in range(3)]
    gone = asyncio.create_task(app(scope, receive, send))
    await anyio.lowlevel.checkpoint()
    gone.cancel()
    await asyncio.gather(*patient)
    assert told == [408, 0] * 3
    with pytest.raises(asyncio.CancelledError):
        await gone


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


ABOUT = About(
    "3.0.0", name="iris", version="4", run_id="r1", classes=(0, 1), class_names=("setosa", "virginica")
)
ONE_FEATURE = replace(ABOUT, classes=(), columns=("size",))


def predict_zeros(body: bytes, _type: str | None) -> Answer:
    """One 0 for each row of a split or of records."""
    given = json.loads(body)
    rows = given["dataframe_split"]["data"] if "dataframe_split" in given else given["dataframe_records"]
    return Answer(200, json.dumps({"predictions": [0] * len(rows)}).encode(), "application/json")


def connect_as(
    about: About, predict: Predict = predict_zeros, limits: Limits | None = None
) -> httpx.AsyncClient:
    app = App(predict, about, limits or Limits())
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://model")


async def test_samples_are_answered_with_classes_and_their_names() -> None:
    async with connect_as(ABOUT) as client:
        answer = await client.post("/predict", json={"samples": [{"size": 1.5}, {"size": 2}]})
    assert answer.json() == {"class_id": [0, 0], "class_label": ["setosa", "setosa"]}


async def test_samples_of_a_model_that_tells_chances_are_answered_with_the_likeliest_class() -> None:
    chances = Answer(200, b'{"predictions": [[0.2, 0.8], [1.0, 0.0]]}', "application/json")
    async with connect_as(ABOUT, lambda _body, _type: chances) as client:
        answer = await client.post("/predict", json={"samples": [{"size": 1.5}, {"size": 2}]})
    assert answer.json() == {"class_id": [1, 0], "class_label": ["virginica", "setosa"]}


@pytest.mark.parametrize("told", ["[[0.1, 0.2, 0.7]]", "[7]", '[{"a": 1}]', '{"a": 1}', '"0"', "[NaN]"])
async def test_predictions_that_are_no_classes_are_told_as_they_are(told: str) -> None:
    predicted = Answer(200, b'{"predictions": %s}' % told.encode(), "application/json")
    async with connect_as(ABOUT, lambda _body, _type: predicted) as client:
        answer = await client.post("/predict", json={"samples": [{"size": 1.5}]})
    assert answer.json() == {"predictions": json.loads(told.replace("NaN", "null"))}


@pytest.mark.parametrize("names", [("setosa",), ("setosa", "versicolor", "virginica")])
async def test_names_that_are_not_one_for_each_class_name_none(names: tuple[str, ...]) -> None:
    async with connect_as(replace(ABOUT, classes=(0, 2), class_names=names)) as client:
        answer = await client.post("/predict", json={"samples": [{"size": 1.5}]})
        about = await client.get("/metadata")
    assert answer.json() == {"class_id": [0], "class_label": ["0"]}
    assert about.json()["classes"] == [0, 2]


@pytest.mark.parametrize("told", ['{"a": 1}', "[]", "[NaN, 1.0]"])
@pytest.mark.parametrize("path", ["/stream", "/batch"])
async def test_predictions_of_any_shape_pass_through_the_calls(path: str, told: str) -> None:
    predicted = Answer(200, b'{"predictions": %s}' % told.encode(), "application/json")
    async with connect_as(ONE_FEATURE, lambda _body, _type: predicted) as client:
        answer = await client.post(path, json={"X": [0.5]})
    expected = json.loads(told.replace("NaN", "null"))
    if (path, told) == ("/stream", "[NaN, 1.0]"):
        expected = None
    assert (answer.status_code, answer.json()) == (200, {"y": expected})


async def test_any_other_body_of_predict_is_mlflows() -> None:
    async with connect_as(ABOUT) as client:
        answer = await client.post("/predict", json={"dataframe_records": [{"size": 1.5}]})
    assert answer.json() == {"predictions": [0]}


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("/stream", 0.2, {"y": 0}),
        ("/stream", [0.2], {"y": 0}),
        ("/batch", [0.2, 0.5, -0.1], {"y": [0, 0, 0]}),
        ("/batch", [[0.2], [0.5]], {"y": [0, 0]}),
    ],
)
async def test_a_model_of_one_feature_takes_bare_numbers(path: str, given: object, expected: object) -> None:
    async with connect_as(ONE_FEATURE) as client:
        answer = await client.post(path, json={"X": given})
    assert answer.json() == expected


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/stream", {"X": [1, 2]}, "a row of 2 values; the model takes 1: size"),
        ("/stream", {"Y": 1}, 'the body must be {"X": number or row}'),
        ("/batch", {"X": 1}, 'the body must be {"X": [number or row, ...]}'),
    ],
)
async def test_a_call_of_another_shape_is_told_the_right_one(path: str, body: object, reason: str) -> None:
    async with connect_as(ONE_FEATURE) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


NOT_UTF8 = (b'{"X": "\xff"}', b'{"\xff": 1}')


@pytest.mark.parametrize("body", [*NOT_UTF8, b'{"X": %s}' % (b"9" * 5000)])
@pytest.mark.parametrize("path", ["/stream", "/batch"])
async def test_a_call_that_cannot_be_read_is_refused(path: str, body: bytes) -> None:
    async with connect_as(ONE_FEATURE) as client:
        assert (await client.post(path, content=body)).status_code == 422


@pytest.mark.parametrize("body", NOT_UTF8)
async def test_text_that_is_not_utf_8_reaches_the_protocol_by_predict(body: bytes) -> None:
    async with connect(lambda body, _type: Answer(400, body, "text/plain")) as client:
        answer = await client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.content) == (400, body)


async def test_a_refusal_of_the_protocol_passes_through_every_call() -> None:
    refusal = Answer(400, b'{"error_code": "BAD_REQUEST"}', "application/json")
    async with connect_as(ONE_FEATURE, lambda _body, _type: refusal) as client:
        for path, body in (("/stream", {"X": 1}), ("/batch", {"X": [1]}), ("/predict", {"samples": []})):
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()) == (400, {"error_code": "BAD_REQUEST"})


async def test_a_server_tells_who_it_is_to_every_client() -> None:
    async with connect_as(ABOUT) as client:
        health = (await client.get("/health")).json()
        service = (await client.get("/")).json()
        about = (await client.get("/metadata")).json()
    assert health == {"status": "healthy", "model": {"name": "iris", "version": "4", "run_id": "r1"}}
    assert service == {"service": "modelkit", "model": "iris", "version": "4"}
    assert {field: about[field] for field in ("model_name", "model_version", "run_id", "model_loaded")} == {
        "model_name": "iris",
        "model_version": "4",
        "run_id": "r1",
        "model_loaded": True,
    }
    assert about["classes"] == ["setosa", "virginica"]


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with connect_as(ABOUT, limits=Limits(body_bytes=10)) as client:
        answer = await client.post("/invocations", content=b"12345678901")
    assert answer.status_code == 413
    assert "SERVE_MAX_BODY_BYTES=10" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/stream", "/batch"])
async def test_a_call_takes_a_megabyte_at_most(path: str) -> None:
    async with connect_as(ONE_FEATURE) as client:
        answer = await client.post(path, content=b'{"X": [%s0]}' % (b"0," * 2**19))
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/stream", "/batch", "/predict"])
async def test_a_large_call_is_not_even_read_before_a_thread_is_free(path: str) -> None:
    release, entered = threading.Event(), threading.Event()

    def wait(_body: bytes, _type: str | None) -> Answer:
        entered.set()
        release.wait()
        return Answer(200, b"{}", "application/json")

    unreadable = b'{"X": ' + b"[" * Limits().inline_bytes
    async with (
        connect_as(ABOUT, wait, Limits(waiting=1, threads=1)) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(partial(client.post, "/invocations", content=b""))
        await anyio.to_thread.run_sync(entered.wait)
        refused = await client.post(path, content=unreadable)
        release.set()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


async def test_the_bodies_of_all_requests_together_have_a_limit_too() -> None:
    full, go_on = anyio.Event(), anyio.Event()

    async def send_slowly() -> AsyncIterator[bytes]:
        yield b"1" * 10
        full.set()
        await go_on.wait()
        yield b"2"

    async def send_at_once() -> AsyncIterator[bytes]:
        yield b"3" * 10
        yield b"4"

    async with connect_as(ABOUT, echo, Limits(body_bytes=20, bodies=1)) as client:
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                assert (await client.post("/invocations", content=send_slowly())).status_code == 200

            group.start_soon(ask)
            await full.wait()
            refused = await client.post("/invocations", content=send_at_once())
            small = await client.post("/invocations", content=b"5")
            go_on.set()
        later = await client.post("/invocations", content=send_at_once())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (small.status_code, later.status_code) == (200, 200)


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    release, entered = threading.Event(), threading.Event()

    def wait(_body: bytes, _type: str | None) -> Answer:
        entered.set()
        release.wait()
        return Answer(200, b"done", "text/plain")

    async with (
        connect_as(ABOUT, wait, Limits(waiting=1, threads=1)) as client,
        anyio.create_task_group() as group,
    ):

        async def ask() -> None:
            assert (await client.post("/invocations", content=b"")).text == "done"

        group.start_soon(ask)
        await anyio.to_thread.run_sync(entered.wait)
        refused = await client.post("/invocations", content=b"")
        release.set()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("turns", [0, 4])  # threads that only wait for their turn are none to count on
async def test_a_server_whose_threads_all_hang_is_unhealthy_until_one_is_free(turns: int) -> None:
    release, left = threading.Event(), threading.Event()

    def wait(_body: bytes, _type: str | None) -> Answer:
        release.wait()
        left.set()
        return Answer(200, b"late", "text/plain")

    async with connect_as(ABOUT, wait, Limits(request_seconds=0.01, threads=1, turns=turns)) as client:
        assert (await client.post("/invocations", content=b"")).status_code == 504
        assert (await client.get("/ping")).status_code == 503
        assert (await client.get("/health")).json()["status"] == "unhealthy"
        release.set()
        with anyio.fail_after(10):
            while (await client.get("/ping")).status_code != 200:
                await anyio.lowlevel.checkpoint()


class PlainOnly:
    def answer(self, body: bytes) -> bytes | None:
        return b"{}" if body == b"plain" else None

    def answer_together(self, bodies: Sequence[bytes]) -> list[bytes | None]:
        return [self.answer(body) for body in bodies]


async def test_what_was_answered_is_counted_by_who_answered() -> None:
    app = App(echo, replace(ABOUT, path="compiled"), Limits(), PlainOnly())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
        for body in (b"plain", b"plain", b"odd"):
            await client.post("/invocations", content=body, headers={"content-type": "application/json"})
        told = (await client.get("/metrics")).text
    assert 'modelkit_model_info{name="iris",version="4",path="compiled",run_id="r1"} 1' in told
    assert 'modelkit_requests_total{lane="compiled",status="200"} 2' in told
    assert 'modelkit_requests_total{lane="native",status="200"} 1' in told
    assert "modelkit_request_seconds_count 3" in told
    assert "modelkit_waiting 0" in told


async def test_what_is_refused_before_the_model_is_counted_by_its_status() -> None:
    async with connect_as(ONE_FEATURE, limits=Limits(body_bytes=10)) as client:
        await client.post("/stream", json={})
        await client.post("/invocations", content=b"12345678901")
        told = (await client.get("/metrics")).text
    assert 'modelkit_requests_total{lane="refused",status="422"} 1' in told
    assert 'modelkit_requests_total{lane="refused",status="413"} 1' in told


def test_rows_are_counted_by_call_of_the_model() -> None:
    telemetry = Telemetry()
    for rows in (1, 1, 3, 100_000):
        telemetry.count_rows(rows)
    told = telemetry.render({}).splitlines()
    assert 'modelkit_batch_rows_bucket{le="1"} 2' in told
    assert 'modelkit_batch_rows_bucket{le="4"} 3' in told
    assert 'modelkit_batch_rows_bucket{le="+Inf"} 4' in told
    assert "modelkit_batch_rows_sum 100005" in told
