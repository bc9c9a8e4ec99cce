"""Connections to Docker that are closed when they fail, and noticed when the other side has vanished."""

import socket
from collections.abc import Mapping
from typing import Any

from docker import APIClient
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool
from requests.adapters import HTTPAdapter

from router.core.errors import RuntimeUnavailable

NEWEST = (1, 47)  # version of the API that this driver was written for
OLDEST = (1, 41)  # Docker 20.10's, and the least that the socket proxy passes on
# A machine that has vanished says no goodbye, and a stream of events may be silent for days.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


def connect(address: str, connections: int, timeout: tuple[float, float]) -> tuple[APIClient, str]:
    """Docker's SDK on this address, and the version of the API that both sides speak."""
    # The SDK is given a version, so that its own first call does not come before these adapters.
    client = APIClient(address, version="1.41", timeout=int(timeout[1]), max_pool_size=connections)
    client.trust_env = False  # proxies are for registries, not for the engine
    if address.startswith("unix:"):
        path = address.removeprefix("unix://")
        client.mount("http+docker://", _UnixAdapter(f"http+unix://{path}", max_pool_size=connections))
    else:
        client.mount("http://", _TcpAdapter(pool_maxsize=connections))
    answer = client.get(f"{client.base_url}/version", timeout=timeout)
    answer.raise_for_status()
    try:
        return client, _agree(address, answer.json())
    except RuntimeUnavailable:
        client.close()
        raise


def _agree(address: str, offered: Mapping[str, str]) -> str:
    """The newest version that both sides speak."""
    newest, oldest = offered.get("ApiVersion", "1.41"), offered.get("MinAPIVersion", "1.41")
    if _read_version(newest) < OLDEST:
        raise RuntimeUnavailable(
            f"Docker at {address} is too old: it speaks its API up to {newest},"
            f" the router from {_show(OLDEST)} on",
            hint="upgrade it to Docker 20.10 or newer",
        )
    if _read_version(oldest) > NEWEST:
        raise RuntimeUnavailable(
            f"Docker at {address} is too new: it speaks its API from {oldest} on,"
            f" the router up to {_show(NEWEST)}",
            hint="upgrade Switchyard, or use an older engine",
        )
    return _show(min(NEWEST, _read_version(newest)))


def _read_version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _show(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


class _TcpAdapter(HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, socket_options=KEEPALIVE, **named)


class _UnixConnection(UnixHTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)  # known from now on, so that a failure closes it
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_socket)


class _UnixPool(UnixHTTPConnectionPool):
    def _new_conn(self) -> Any:
        timeout: Any = self.timeout
        return _UnixConnection(self.base_url, self.socket_path, timeout)


class _UnixAdapter(UnixHTTPAdapter):
    """With one pool of connections, where the SDK has one for each URL."""

    def get_connection(self, url: str | bytes, proxies: Any = None) -> _UnixPool:
        with self.pools.lock:
            pool = self.pools.get("engine")
            if pool is None:
                pool = _UnixPool("engine", self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools["engine"] = pool
            return pool
