"""docker-compose.yaml beside what it names: the router's settings, and the example of its own."""

import re
from typing import Any

import pytest
import yaml

from router.settings import Settings
from scripts.service_commands import ROOT

TEXT = (ROOT / "docker-compose.yaml").read_text()
NAMES = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
OF_PROCESSES = {"PROCESS_PORTS", "PROJECT_ROOT"}
# Fixed inside: what differs is where they are published.
INSIDE = {"ROUTER_PORT", "MLFLOW_SERVICE_PORT", "PROXY_IDLE_PORT"}


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def test_every_setting_of_the_router_can_be_made(compose: dict[str, Any]) -> None:
    passed = set(compose["services"]["router"]["environment"])
    assert passed == set(Settings.variables()) - OF_PROCESSES - INSIDE


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in lines} == NAMES
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", TEXT))
    assert {name: value for name, value in lines if name in defaults} == defaults
    for name, field in Settings.model_fields.items():
        told = dict(lines).get(name.upper())
        if told and name.upper() not in defaults and not field.default_factory and field.default is not None:
            assert told == str(field.default), name


def test_only_the_socket_proxy_holds_dockers_socket(compose: dict[str, Any]) -> None:
    holders = {
        name
        for name, service in compose["services"].items()
        if any("docker.sock" in volume for volume in service.get("volumes", []))
    }
    assert holders == {"socket-proxy"}


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if service.get("profiles") == ["models"]:
            continue  # built, and never started
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service


def test_everything_is_published_on_this_machine_alone_unless_told_otherwise(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(re.match(r"\$\{[A-Z]+_BIND:-127\.0\.0\.1\}:", port) for port in ports)
