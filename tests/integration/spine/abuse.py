"""Calls that make no sense, in tables, and what each is to be told: for every router that tests talk to."""

import json

from tests.integration.spine.wire import Answer, compose, connect, read_answer, send_raw

NO_NAMES = [
    *("../../etc/passwd", "..%2f..%2fetc", "%2e%2e", "%2E%2E%2F", ".", "..;", "a/../b", "%2e%2e%5cetc"),
    *("a%00b", "a%0ab", "a%0d%0aX-Evil:%201", "%ff%fe", "caf%c3%a9", "%20", "", "-rf", "a" * 64, "a b"),
]
WRONG_FIELDS: list[tuple[str, object, str]] = [
    ("train", {"wait_seconds": "5"}, "body.wait_seconds"),
    ("train", {"wait_seconds": -1}, "body.wait_seconds"),
    ("train", {"wait_seconds": 86_401}, "body.wait_seconds"),
    ("train", {"wait_seconds": True}, "body.wait_seconds"),
    ("train", {"image_key": 5}, "body.image_key"),
    ("train", {"parameters": []}, "body.parameters"),
    ("train", {"parameters": {"A": [1]}}, "body.parameters.A"),
    ("train", {"parameters": {"A": {"b": 1}}}, "body.parameters.A"),
    ("train", {"parameters": {"MLFLOW_RUN_ID": "x"}}, "parameters.MLFLOW_RUN_ID"),
    ("train", {"parameters": {"LD_PRELOAD": "x.so"}}, "parameters.LD_PRELOAD"),
    ("train", {"parameters": {"A": "\ud800"}}, "parameters.A: the value is not valid Unicode"),
    ("train", {"parameters": {"GIT_CONFIG_COUNT": "1"}}, "parameters.GIT_CONFIG_COUNT"),
    ("train", {"parameters": {"A": "x\ny"}}, "parameters.A"),
    ("train", {"parameters": {"A": "x\0y"}}, "parameters.A"),
    ("train", {"parameters": {"REGISTERED_MODEL_NAME": "../x"}}, "parameters.REGISTERED_MODEL_NAME"),
    ("train", {"nonsense": 1}, "body.nonsense"),
    ("train", [1], "body"),
    ("roll", {"name": "M", "ref": "latest"}, "body.ref"),
    (
        "roll",
        {"name": "M", "ref": "@"},
        "body.ref: must be a version, such as 3 without quotes, or an alias",
    ),
    ("roll", {"name": "M", "ref": "@a\n"}, "body.ref"),
    ("roll", {"name": "M", "ref": True}, "body.ref"),
    ("roll", {"name": "M", "ref": "@a/../b"}, "body.ref"),
    ("roll", {"name": "M", "ref": "1"}, "body.ref"),
    ("roll", {"name": "M", "ref": 1.0}, "body.ref"),
    ("roll", {"name": "M", "ref": 0}, "body.ref"),
    ("roll", {"name": "M", "ref": 2**31}, "body.ref"),
    ("roll", {"name": "M", "ref": None}, "body.ref"),
    ("roll", {"name": "M"}, "body.ref"),
    ("roll", {"ref": 1}, "body.name"),
    ("roll", {"name": "../M", "ref": 1}, "body.name"),
    ("roll", {"name": "%2e%2e", "ref": 1}, "body.name"),
    ("roll", {"name": "M\n", "ref": 1}, "body.name"),
    ("roll", {"name": "M\0", "ref": 1}, "body.name"),
    ("roll", {"name": "", "ref": 1}, "body.name"),
    ("roll", {"name": "M", "ref": 1, "wait_ready_seconds": 901}, "body.wait_ready_seconds"),
    ("roll", {"name": "M", "ref": 1, "serve_image": "../../x"}, "body.serve_image"),
    ("roll", {"name": "M", "ref": 1, "serve_image": "x\n"}, "body.serve_image"),
    ("roll", {"name": "M", "ref": 1, "endpoint": "../x"}, "body.endpoint"),
    ("rollback", {"wait_ready_seconds": 0}, "body.wait_ready_seconds"),
    ("rollback", {"serve_image": 7}, "body.serve_image"),
]
NO_OBJECTS = [b"{", b"\xff\xfe", b"[" * 200_000, b'{"wait_seconds": NaN}', b'"text"']
CHUNKED = b"Host: a\r\nTransfer-Encoding: chunked\r\n"
NO_HTTP = {
    "empty lines": b"\r\n\r\n",
    "zeros": b"\0" * 200,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown version": b"GET / HTTP/9.9\r\n\r\n",
    "no version": b"GET /status\r\n\r\n",
    "a negative length": b"POST /admin/roll HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /admin/roll HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 3\r\n\r\n{}",
    "a chunk of no length": b"POST /admin/roll HTTP/1.1\r\n" + CHUNKED + b"\r\nzz\r\n{}\r\n",
    "chunks and a length": b"POST /admin/roll HTTP/1.1\r\nContent-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "a huge header": b"GET /status HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 2**18 + b"\r\n\r\n",
    "a huge path": b"GET /" + b"a" * 2**18 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "half a body": b"POST /admin/roll HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{",
}


def send(url: str, path: str, body: object = None) -> Answer:
    return send_bytes(url, path, json.dumps({} if body is None else body).encode())


def send_bytes(url: str, path: str, content: bytes) -> Answer:
    answer = send_raw(url, compose(path, content))
    assert answer is not None
    return answer


def check_no_name(url: str, call: str, name: str) -> None:
    answer = send(url, f"/admin/{call}/{name}")
    if " " in name:
        assert answer.status == 400  # no HTTP at all
        return
    assert answer.status == 422, answer.body
    assert answer.error["code"] == "invalid_request"
    assert "path.trainer" in answer.error["message"]


def check_wrong_field(url: str, trainer: str, path: str, body: object, field: str) -> None:
    answer = send(url, f"/admin/train/{trainer}" if path == "train" else f"/admin/{path}", body)
    assert answer.status == 422, answer.body
    assert answer.error["code"] == "invalid_request"
    assert field in answer.error["message"]


def check_no_object(url: str, trainer: str, content: bytes) -> None:
    answer = send_bytes(url, f"/admin/train/{trainer}", content)
    assert answer.status in {400, 422}
    assert answer.error["code"]


def check_no_http(router_url: str, public_url: str, sent: bytes) -> None:
    fine = {
        router_url: range(200, 500),
        public_url: {*range(200, 500), 505},
    }
    for url, expected in fine.items():
        with connect(url) as connection:
            connection.settimeout(0.5)
            try:
                connection.sendall(sent)
                answer = read_answer(connection)
            except OSError:  # it hung up on us, or waits for more, and we hang up
                continue
            assert answer is None or answer.status in expected, answer
