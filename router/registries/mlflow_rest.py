"""MLflow's REST API with bounds, because its own client has none that fit and cannot be given them per call.

`MlflowClient` waits 120 s for each answer and repeats seven times; both come from process-wide environment
variables, which trainers started by this process would inherit, and a blocked call keeps its thread. It also
adds 35 MiB and a second of imports to the router, reports usage to the Internet, and needs each artifact
store's own library to read a file. The REST API is documented, versioned and small. Over httpx a call ends
at its deadline whatever the server does, and files come through the server's own artifact endpoints, so any
store that the server can read will do.

MLflow's answers are translated here: a missing thing is NotFound, one that exists already is Conflict, what
MLflow finds invalid is InvalidRequest, and everything that is no answer at all is RegistryUnavailable.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from router.core.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    RegistryRefusedHost,
    RegistryUnavailable,
    SwitchyardError,
    UnsupportedSetting,
)
from router.registries.patience import Patience

# uvicorn, which serves MLflow, closes a connection that was idle for 5 s. Ours are given up before, so that
# no request meets one that is closing.
KEEPALIVE_SECONDS = 2.0
# MLflow answers from a pool of threads before one SQLite file: more connections only queue there.
CONNECTIONS = 8
HOST_REFUSAL = "Invalid Host header"


class MlflowRest:
    def __init__(self, tracking_uri: str, patience: Patience) -> None:
        url = _parse_tracking_uri(tracking_uri)
        # Credentials leave the URL, so that no error or log line can carry them.
        self._auth = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
        self._base = url.copy_with(username=None, password=None)
        self.address = url.netloc.decode("ascii")
        self._patience = patience
        self._client: httpx.AsyncClient | None = None

    def open(self) -> None:
        if self._client is not None:
            return
        patience = self._patience
        self._client = httpx.AsyncClient(
            base_url=self._base,
            auth=self._auth,
            # The wait for a free connection is bounded by the call's total alone.
            timeout=httpx.Timeout(patience.answer, connect=patience.connect, pool=None),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS),
            trust_env=False,  # only settings read the environment; no proxy stands before an internal server
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, endpoint: str, /, **parameters: str | int) -> dict[str, Any]:
        return await self._call("GET", endpoint, params=parameters)

    async def post(self, endpoint: str, /, **fields: Any) -> dict[str, Any]:
        return await self._call("POST", endpoint, json=fields)

    async def delete(self, endpoint: str, /, **fields: Any) -> dict[str, Any]:
        return await self._call("DELETE", endpoint, json=fields)

    async def read_file(self, endpoint: str, limit: int, /, **parameters: str | int) -> bytes:
        """At most `limit` bytes: a longer file is InvalidRequest."""
        try:
            async with self._open_client().stream("GET", endpoint, params=parameters) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise self._translate(response)
                content = bytearray()
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > limit:
                        raise InvalidRequest(f"{parameters['path']} is larger than {limit >> 20} MiB")
                return bytes(content)
        except httpx.TransportError as error:
            raise self.unavailable(_reason(error)) from error

    def unavailable(self, reason: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"MLflow at {self.address} does not answer: {reason}",
            hint="start MLflow, or correct MLFLOW_TRACKING_URI; models that are being served stay up",
        )

    async def _call(self, method: str, endpoint: str, **content: Any) -> dict[str, Any]:
        try:
            response = await self._open_client().request(method, f"api/2.0/mlflow/{endpoint}", **content)
        except httpx.TransportError as error:
            raise self.unavailable(_reason(error)) from error
        if response.status_code != httpx.codes.OK:
            raise self._translate(response)
        answer = _parse_object(response)
        if answer is None:
            raise self.unavailable("what listens there answers, but not as MLflow does")
        return answer

    def _open_client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise RuntimeError("the MLflow registry is used before start() or after close()")
        return self._client

    def _translate(self, response: httpx.Response) -> SwitchyardError:
        status = response.status_code
        if status == httpx.codes.FORBIDDEN and HOST_REFUSAL in response.text:
            host = response.request.headers["Host"]
            return RegistryRefusedHost(
                f"MLflow at {self.address} refuses the Host header {host!r}",
                hint=f"add {host} to the list in MLflow's --allowed-hosts (or MLFLOW_SERVER_ALLOWED_HOSTS)",
            )
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            return RegistryUnavailable(
                f"MLflow at {self.address} refuses our credentials ({status})",
                hint="put them into MLFLOW_TRACKING_URI: http://USER:PASSWORD@HOST:PORT",
            )
        error = _parse_object(response) or {}
        message = f"MLflow: {error.get('message', status)}"
        match error.get("error_code"):
            case "RESOURCE_DOES_NOT_EXIST" | "NOT_FOUND":
                return NotFound(message)
            case "RESOURCE_ALREADY_EXISTS" | "ALREADY_EXISTS":
                return Conflict(message)
            case str() if status < 500 and status != httpx.codes.TOO_MANY_REQUESTS:
                return InvalidRequest(message)
        return self.unavailable(f"status {status}, {error.get('message', response.text[:200])}")


async def collect_pages(
    call: Callable[..., Awaitable[dict[str, Any]]], endpoint: str, field: str, **query: Any
) -> list[dict[str, Any]]:
    """Everything that a search finds, from all its pages; `call` is the `get` or `post` of a MlflowRest."""
    found: list[dict[str, Any]] = []
    while True:
        page = await call(endpoint, **query)
        found += page.get(field, [])
        if not page.get("next_page_token"):
            return found
        query["page_token"] = page["next_page_token"]


def _parse_tracking_uri(tracking_uri: str) -> httpx.URL:
    try:
        _ = urlsplit(tracking_uri).port  # checks brackets and the port's range, which httpx does not
        url = httpx.URL(tracking_uri)
    except (ValueError, httpx.InvalidURL) as error:
        raise UnsupportedSetting("MLFLOW_TRACKING_URI is not a URL") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise UnsupportedSetting(
            f"MLFLOW_TRACKING_URI names no MLflow server (its scheme is {url.scheme or 'missing'!r})",
            hint="the router speaks to a server: http://HOST:PORT",
        )
    return url


def _parse_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return dict(answer) if isinstance(answer, Mapping) else None


def _reason(error: httpx.TransportError) -> str:
    return f"{type(error).__name__} {error}".strip()
