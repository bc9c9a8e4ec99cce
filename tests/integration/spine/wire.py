"""HTTP by hand: what no client library would send."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

ANSWER_SECONDS = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 80)), timeout=ANSWER_SECONDS)


def read_answer(connection: socket.socket) -> Answer | None:
    """None if the other side hangs up without a word."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return Answer(response.status, response.read())
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return None


def send_raw(url: str, sent: bytes) -> Answer | None:
    with connect(url) as connection:
        connection.sendall(sent)
        return read_answer(connection)


def compose(path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A POST; the path goes out as it is."""
    fields = {"Host": "127.0.0.1", "Content-Type": "application/json", **(headers or {})}
    if "Transfer-Encoding" not in fields:
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body
