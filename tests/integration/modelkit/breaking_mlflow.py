"""An MLflow server whose answers end half-way, as those of one that dies while it sends a file; or that wants
credentials."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.services.mlflow_server import MlflowServer


class BreakingMlflow:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.breaks: dict[str, int] = {}  # how often a file of this name breaks off
        self.wanted: str | None = None  # the Authorization that it asks for
        self.is_on_an_object_store = False  # of whose errors MLflow makes a 500, of a missing file's too


@contextmanager
def run_breaking_mlflow(mlflow: MlflowServer) -> Iterator[BreakingMlflow]:
    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != breaking.wanted:
                self.send_error(401)
                return
            inner = http.client.HTTPConnection(mlflow.url.removeprefix("http://"), timeout=60)
            inner.request("GET", self.path)
            answer = inner.getresponse()
            content = answer.read()
            inner.close()
            is_missing = answer.status == http.HTTPStatus.NOT_FOUND and breaking.is_on_an_object_store
            self.send_response(500 if is_missing else answer.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            name = self.path.rpartition("/")[2]
            if breaking.breaks.get(name, 0) > 0:
                breaking.breaks[name] -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """The test's output is for the test."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        breaking = BreakingMlflow(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield breaking
        finally:
            server.shutdown()
            thread.join()
