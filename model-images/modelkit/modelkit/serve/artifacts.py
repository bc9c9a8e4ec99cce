"""Finds a model's files in MLflow and fetches them, over HTTP alone.

MLflow's own client does the same after 1.2 s of imports. What only that client can do (storage that MLflow's
server does not serve, stages, runs) is refused here as `NotDirect`, and left to it.
"""

import base64
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

_TIMEOUT = 20  # seconds for one answer to begin, or to go on
_PAUSES = (0.2, 1.0)  # seconds before a second and a third try
_CHUNK = 1 << 20
_API = "/api/2.0/mlflow"
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)$")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)$")
_MODEL = re.compile(r"models:/(?P<id>m-[0-9a-f]+)$")


class NotDirect(Exception):
    """This model cannot be fetched over HTTP from MLflow's server; MLflow's client may know how."""


class Refused(Exception):
    """MLflow answered, and the answer is no."""


class Unreachable(Exception):
    """MLflow did not answer, or not to the end. Another try can help."""


@dataclass(frozen=True)
class Source:
    """Where a model's files are, and which version of which model they are."""

    folder: str
    name: str | None = None
    version: str | None = None
    run_id: str | None = None


class ArtifactService:
    def __init__(self, url: str, credentials: str | None = None) -> None:
        """`credentials` is the value of an Authorization header; those in the URL go before them."""
        split = urlsplit(url)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise NotDirect(f"MLFLOW_TRACKING_URI={show_address(url)} is not an HTTP address")
        self._secure = split.scheme == "https"
        self._host, self._port, self._prefix = split.hostname, split.port, split.path.rstrip("/")
        if split.username is not None:
            credentials = make_credentials(unquote(split.username), unquote(split.password or ""), None)
        self._headers = {} if credentials is None else {"Authorization": credentials}

    def find(self, uri: str) -> Source:
        if match := _VERSION.match(uri):
            return self._find_version(self._get("model-versions/get", **match.groupdict())["model_version"])
        if match := _ALIAS.match(uri):
            found = self._get("registered-models/alias", **match.groupdict())
            return self._find_version(found["model_version"])
        if match := _MODEL.match(uri):
            info = self._get(f"logged-models/{match['id']}")["model"]["info"]
            return Source(_read_folder(info["artifact_uri"]), run_id=info.get("source_run_id"))
        raise NotDirect(f"{uri} names neither a version, an alias nor a logged model")

    def list_files(self, folder: str) -> dict[str, int]:
        """Every file below `folder` and its size, by its path in the folder."""
        found: dict[str, int] = {}
        left = [""]
        while left:
            here = left.pop()
            path = f"{folder}/{here}".rstrip("/")
            answer = self._read_json(f"{_API}-artifacts/artifacts?{urlencode({'path': path})}")
            for entry in answer.get("files", []):
                name = f"{here}/{entry['path'].rpartition('/')[2]}".lstrip("/")
                if entry.get("is_dir"):
                    left.append(name)
                else:
                    found[name] = int(entry.get("file_size", 0))
        return found

    def fetch(self, folder: str, path: str, write: Callable[[bytes], Any]) -> None:
        """Hands the file to `write` in pieces. Raises KeyError if there is none."""
        with self._answer(f"{_API}-artifacts/artifacts/{quote(f'{folder}/{path}')}") as answer:
            while piece := answer.read(_CHUNK):
                write(piece)
            if answer.length:  # read by pieces, a body may end early without an error
                raise http.client.IncompleteRead(b"", answer.length)

    def _find_version(self, found: dict[str, Any]) -> Source:
        name, version = found["name"], str(found["version"])
        where = self._get("model-versions/get-download-uri", name=name, version=version)["artifact_uri"]
        return Source(_read_folder(where), name, version, found.get("run_id") or None)

    def _get(self, call: str, **parameters: str) -> Any:
        try:
            return self._read_json(f"{_API}/{call}?{urlencode(parameters)}")
        except KeyError as error:
            raise Refused(str(error.args[0])) from error

    def _read_json(self, path: str) -> Any:
        with self._answer(path) as answer:
            return json.loads(answer.read())

    @contextmanager
    def _answer(self, path: str) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT)
        try:
            connection.request("GET", self._prefix + path, headers=self._headers)
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                _refuse(answer)
            yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"MLflow at {self._host}:{self._port}: {reason}") from error
        finally:
            connection.close()


def keep_trying(work: Callable[[], Any]) -> Any:
    """Once more, and again, where MLflow could not be reached."""
    for pause in _PAUSES:
        try:
            return work()
        except Unreachable:
            time.sleep(pause)
    return work()


def make_credentials(username: str | None, password: str | None, token: str | None) -> str | None:
    """As MLflow's client takes them from its variables."""
    if username is not None:
        return "Basic " + base64.b64encode(f"{username}:{password or ''}".encode()).decode()
    return f"Bearer {token}" if token is not None else None


def show_address(url: str) -> str:
    """Without the user and the password that may be in it."""
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    return url.replace(user + at, "", 1)


def _refuse(answer: http.client.HTTPResponse) -> None:
    content = answer.read(1 << 16)
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{answer.status} {answer.reason}"
    if answer.status == http.HTTPStatus.NOT_FOUND:
        raise KeyError(message)
    if answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise OSError(f"{answer.status} {message}")
    raise Refused(message)


def _read_folder(uri: str) -> str:
    split = urlsplit(uri)
    if split.scheme != "mlflow-artifacts" or split.netloc:
        raise NotDirect(f"its files are at {uri}, which MLflow's server does not serve")
    return split.path.strip("/")
