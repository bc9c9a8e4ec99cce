"""The kinds of value that a setting may have: read from text, and refused with what would be right."""

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from router.core.traffic import check_alias

MAX_SOCKET_PATH = 100  # bytes; the system's limit is 104 to 108
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./@+,=~-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ENGINE = re.compile(r"unix:///\S+|(?:tcp|https?)://[^\s/@]+")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:]+\]")


def read_path(path: Path) -> Path:
    return path.expanduser().absolute()


def read_folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"must be a folder, but {path} is a file")
    return path


def read_caddy_path(path: Path) -> Path:
    if not _PLAIN_PATH.fullmatch(str(path)):
        raise ValueError(
            f"Caddy takes only letters, digits and `_./@+,=~-` in it: {path} (it may follow from STATE_PATH)"
        )
    return path


def read_socket(value: object) -> object:
    """Caddy's way of writing a unix socket (`unix//run/caddy.sock`), a URL (`unix:///...`), or its path."""
    if not isinstance(value, str):
        return value
    path = re.sub(r"^unix(?:/|:(?://)?)(?=/)", "", value)
    if not path.startswith("/"):
        raise ValueError(
            "must be a unix socket, such as unix//run/caddy/admin.sock: the admin API is not for a network"
        )
    return Path(path)


def check_socket(path: Path) -> Path:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(
            f"the path is longer than {MAX_SOCKET_PATH} bytes: {path} (it may follow from STATE_PATH)"
        )
    return path


def read_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError("must be an http:// or https:// address")
    return value.rstrip("/")


def read_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("must be a host's name or address, without a scheme or port")
    return value


def read_token(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]*", value.get_secret_value()):
        raise ValueError("may hold only visible ASCII characters, which fit in a header")
    return value


def is_own_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_ports(value: object) -> object:
    """`20000-29999` to a range that has both ends."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", value)
    ports = range(int(match[1]), int(match[2]) + 1) if match else range(0)
    if len(ports) < 10 or ports[0] < 1024 or ports[-1] > 65535:
        raise ValueError("must be a range of at least 10 ports between 1024 and 65535, such as 20000-29999")
    return ports


def read_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("must begin with a letter or digit, and go on with these, `_`, `.` and `-`")
    return value


def read_network(value: str) -> str:
    if value in {"host", "none", "default", "bridge", "container", "ingress"}:
        raise ValueError("must be a network of its own, in which containers find one another by name")
    return read_name(value)


def read_engine(value: str) -> str:
    if not _ENGINE.fullmatch(value):
        raise ValueError("must be unix:///PATH or tcp://HOST:PORT")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Ports = Annotated[range, NoDecode, BeforeValidator(read_ports)]
FilePath = Annotated[Path, AfterValidator(read_path)]
Folder = Annotated[Path, AfterValidator(read_path), AfterValidator(read_folder)]
CaddyPath = Annotated[Path, AfterValidator(read_path), AfterValidator(read_caddy_path)]
Socket = Annotated[
    Path, BeforeValidator(read_socket), AfterValidator(read_caddy_path), AfterValidator(check_socket)
]
Url = Annotated[str, AfterValidator(read_url)]
Host = Annotated[str, AfterValidator(read_host)]
Name = Annotated[str, AfterValidator(read_name)]
Network = Annotated[str, AfterValidator(read_network)]
Engine = Annotated[str, AfterValidator(read_engine)]
Alias = Annotated[str, AfterValidator(check_alias)]
Token = Annotated[SecretStr, AfterValidator(read_token)]
