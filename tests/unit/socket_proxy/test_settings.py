"""The settings of the socket proxy: what is refused, and that its page tells all of them."""

import re

import pytest
from pydantic import ValidationError

from scripts.service_commands import ROOT
from socket_proxy.settings import PREFIX, Settings

PAGE = ROOT / "docs" / "socket-proxy.md"
OF_THE_MACHINE = {"max_memory", "max_cpus"}  # their defaults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "many"),
        ("evil", "1"),
        ("instance", "a=b"),
        ("images", "team/x@sha256:ab"),
        ("images", "Team/x"),
        ("pulls", "http://host/x"),
        ("server_network", "host"),
        ("trainer_network", "container:x"),
        ("volume_prefix", "/"),
        ("max_memory", "1x"),
        ("max_pids", "0"),
        ("name_pattern", "("),
        ("allow_gpus", "perhaps"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as error:
        Settings.load({f"{PREFIX}{name.upper()}": value})
    assert error.value.errors()[0]["loc"][0] == name


def test_lists_and_sizes_are_read_as_people_write_them() -> None:
    given = {"IMAGES": "team/*, trainer-*:1", "MAX_MEMORY": "2g", "ALLOW_GPUS": "true", "PORT": ""}
    settings = Settings.load({f"{PREFIX}{name}": value for name, value in given.items()} | {"PATH": "/bin"})
    assert settings.images == ("team/*", "trainer-*:1")
    assert settings.max_memory == 2 * 1024**3
    assert settings.allow_gpus
    assert settings.port == 2375


def test_every_setting_stands_on_the_page_with_its_default() -> None:
    """On failure, paste the missing lines from what is shown."""
    lines = PAGE.read_text().splitlines()
    assert [row for row in map(describe, Settings.model_fields) if row not in lines] == []
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert named == {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def describe(name: str) -> str:
    field = Settings.model_fields[name]
    default = "the machine's" if name in OF_THE_MACHINE else field.default
    if isinstance(default, tuple):
        default = ",".join(default)
    if isinstance(default, re.Pattern):
        default = default.pattern
    shown = "" if default == "" else default if name in OF_THE_MACHINE else f"`{default}`"
    return f"| `{PREFIX}{name.upper()}` | {shown} | {' '.join(str(field.description).split())} |"
