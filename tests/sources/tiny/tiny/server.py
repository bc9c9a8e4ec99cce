"""A server that keeps the contract, unless its folder tells it how not to.

`POST /invocations` answers `{"predictions": [VERSION], "server": ID}`, with the version once for each row. A
body may say `{"sleep": SECONDS}` to be answered late, or `{"poison": PATH}` to kill the server, which first
adds its id to that file.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

IDLE_SECONDS = 30.0


@dataclass
class Behaviour:
    ready_after: float = 0.0  # seconds before /ping answers 200
    never_ready: bool = False
    flaps: bool = False  # every second answer is a 503
    prediction_status: int = 200
    prediction: Any = None  # instead of the version
    dies_after_predictions: int = 0
    dies_at_ping: int = 0
    fails_every: int = 0  # of so many predictions, the last one
    fails_above: int = 0  # requests inside at once
    takes: float = 0.0  # seconds for a prediction


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: "TinyServer"

    def do_GET(self) -> None:
        self.server.enter()
        try:
            self.answer(*self.server.ping())
        finally:
            self.server.leave()

    def do_POST(self) -> None:
        self.server.enter()
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(*self.server.predict(body))
        finally:
            self.server.leave()

    def answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: a test's load would fill the log."""


class TinyServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__((os.environ["SERVE_HOST"], int(os.environ["SERVE_PORT"])), Handler)
        self.behaviour = behaviour
        self.began = time.monotonic()
        self.asked = self.predicted = self.inside = 0
        self.counting = threading.Condition()

    def enter(self) -> None:
        with self.counting:
            self.inside += 1

    def leave(self) -> None:
        with self.counting:
            self.inside -= 1
            self.counting.notify_all()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def ping(self) -> tuple[int, dict[str, Any]]:
        behaviour = self.behaviour
        self.asked += 1
        if self.asked == behaviour.dies_at_ping:
            die()
        early = time.monotonic() - self.began < behaviour.ready_after
        if behaviour.never_ready or early or (behaviour.flaps and self.asked % 2):
            return 503, {"status": "not ready"}
        return 200, {"status": "ok", "server": os.environ.get("SERVER_ID")}

    def predict(self, body: bytes) -> tuple[int, dict[str, Any]]:
        behaviour = self.behaviour
        try:
            asked = json.loads(body)
        except ValueError:
            return 400, {"error_code": "BAD_REQUEST", "message": "the body is not JSON"}
        if asked.get("poison"):
            with Path(asked["poison"]).open("a") as deliveries:
                deliveries.write(f"{os.environ.get('SERVER_ID')}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(asked.get("sleep", 0)))
        self.predicted += 1
        if behaviour.dies_after_predictions and self.predicted > behaviour.dies_after_predictions:
            die()
        time.sleep(behaviour.takes)
        overloaded = 0 < behaviour.fails_above < self.inside
        if overloaded or (behaviour.fails_every and self.predicted % behaviour.fails_every == 0):
            return 500, {"error_code": "BAD", "message": "it was told to fail now and then"}
        if behaviour.prediction_status != 200:
            return behaviour.prediction_status, {"error_code": "BAD", "message": "it was told to fail"}
        version = int(os.environ.get("MODEL_VERSION", "0"))
        value = version if behaviour.prediction is None else behaviour.prediction
        rows = len(asked.get("dataframe_split", {}).get("data", [None]))
        return 200, {"predictions": [value] * rows, "server": os.environ.get("SERVER_ID")}

    def finish(self) -> None:
        """Stop taking requests, and wait for those inside."""
        self.shutdown()
        with self.counting:
            self.counting.wait_for(lambda: self.inside == 0)


def die() -> None:
    print("dies now", flush=True)
    os._exit(7)


def serve(behaviour: Behaviour | None = None) -> None:
    server = TinyServer(behaviour or Behaviour())
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    print("tiny server ready", os.environ.get("SERVER_ID"), flush=True)
    ended.wait()
    server.finish()
    sys.exit(0)
