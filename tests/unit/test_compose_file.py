"""docker-compose.yaml beside what it names: the router's settings, and the example of its own."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.settings import Settings
from scripts.service_commands import ROOT
from socket_proxy.settings import PREFIX
from socket_proxy.settings import Settings as ProxySettings

TEXT = (ROOT / "docker-compose.yaml").read_text()
NAMES = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
OF_PROCESSES = {"PROCESS_PORTS", "PROJECT_ROOT"}
# Fixed inside: what differs is where they are published.
INSIDE = {"ROUTER_PORT", "MLFLOW_SERVICE_PORT", "PROXY_IDLE_PORT"}
PROXY_INSIDE = {"host", "port", "docker_socket"}
EXAMPLE = re.findall(r"^#?([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE)


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def test_every_setting_of_the_router_can_be_made(compose: dict[str, Any]) -> None:
    passed = set(compose["services"]["router"]["environment"])
    assert passed == set(Settings.variables()) - OF_PROCESSES - INSIDE


def test_every_setting_of_the_socket_proxy_can_be_made(compose: dict[str, Any]) -> None:
    passed = set(compose["services"]["socket-proxy"]["environment"])
    assert passed == {f"{PREFIX}{name.upper()}" for name in set(ProxySettings.model_fields) - PROXY_INSIDE}


def test_the_example_has_the_socket_proxys_own_defaults(compose: dict[str, Any]) -> None:
    """But for what it allows, which is nothing by default."""
    told = dict(EXAMPLE)
    environment = compose["services"]["socket-proxy"]["environment"]
    whole = {
        name: told[match[1]]  # names of networks and caches only begin with a variable
        for name, text in environment.items()
        if (match := re.fullmatch(r"\$\{([A-Z_]+)[^}]*\}", text))
    }
    assert ProxySettings.load({**whole, f"{PREFIX}IMAGES": ""}) == ProxySettings.load({})


def test_every_setting_stands_in_the_example_with_its_default() -> None:
    lines = EXAMPLE
    assert {name for name, _ in lines} == NAMES
    project = {"COMPOSE_PROJECT_NAME": "switchyard"}
    text = TEXT.replace("${COMPOSE_PROJECT_NAME:-switchyard}", "switchyard")
    defaults = project | dict(re.findall(r"\$\{([A-Z_]+):-([^}]+)\}", text))
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


def test_only_those_who_need_a_volume_have_it(compose: dict[str, Any]) -> None:
    """Whoever can write to Caddy's admin socket or to the slots decides who gets the traffic."""
    mounts: dict[str, set[str]] = {name: set() for name in compose["volumes"]}
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            if source in mounts:
                mounts[source].add(f"{name}:ro" if rest.endswith(":ro") else name)
    assert mounts == {
        "state": {"router"},
        "slots": {"router", "caddy:ro"},
        "caddy": {"router", "caddy"},
        "mlflow": {"mlflow"},
    }


def test_every_mount_stands_on_the_page_about_docker(compose: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "docker.md").read_text()
    mounted = {mount.partition(":")[0] for mount in compose["services"]["router"]["volumes"]}
    assert {name for name in mounted | set(compose["volumes"]) if f"\n| `{name}`" not in page} == set()


def test_whoever_is_waited_for_is_waited_for_until_healthy(compose: dict[str, Any]) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in compose["services"].items()}
    assert set(waits["router"]) == {"socket-proxy", "mlflow"}
    assert set(waits["caddy"]) == {"router"}
    assert all(wait == {"condition": "service_healthy"} for each in waits.values() for wait in each.values())
    assert "healthcheck" in compose["services"]["caddy"]  # the others' are in their images


def test_networks_that_the_host_need_not_reach_have_no_address_of_it(compose: dict[str, Any]) -> None:
    for name in ("control", "servers"):
        network = compose["networks"][name]
        assert network["internal"]
        assert network["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_only_router_and_socket_proxy_share_a_network_with_the_socket_proxy(compose: dict[str, Any]) -> None:
    members = {
        name for name, service in compose["services"].items() if "control" in service.get("networks", ())
    }
    assert members == {"router", "socket-proxy"}
    assert compose["services"]["socket-proxy"]["networks"] == ["control"]


# --- images ----------------------------------------------------------------------------------------------

DOCKERFILES = sorted(
    path
    for folder in ("images", "model-images", "socket-proxy")
    for path in (ROOT / folder).rglob("Dockerfile")
)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_is_made_in_stages_of_what_is_locked_on_a_base_that_can_be_chosen(path: Path) -> None:
    text = path.read_text()
    first, *stages = re.findall(r"^FROM (\S+)( AS \w+)?$", text, re.MULTILINE)
    assert "ARG PYTHON_IMAGE=python:3.13-slim\n" in text
    assert first[0] == "${PYTHON_IMAGE}"
    assert stages
    named = {name.removeprefix(" AS ") for _, name in (first, *stages)}
    assert {base for base, _ in stages} <= named | {"${PYTHON_IMAGE}"}
    assert text.count("install --no-cache-dir") == text.count("--require-hashes") == 1
    assert re.search(r"^USER \d{5}:\d{5}$", text, re.MULTILINE)
    assert "curl" not in text
    assert "apt-get" not in text


def test_every_image_that_is_built_is_named_after_the_project_as_the_specs_say(
    compose: dict[str, Any],
) -> None:
    """So that another stack on the engine, or a test, builds under names of its own."""
    project = "${COMPOSE_PROJECT_NAME:-switchyard}"
    services = {name: each for name, each in compose["services"].items() if "build" in each}
    assert {name: each["image"] for name, each in services.items()} == {
        name: f"{project}/{name}" for name in services
    }
    assert compose["services"]["router"]["environment"]["DOCKER_INSTANCE"] == project
    spec = yaml.safe_load((ROOT / "specs" / "sklearn-model-1.yaml").read_text())["sklearn-model-1"]
    assert {spec["trainer_image"], spec["serve_image"]} == {
        "${DOCKER_INSTANCE:-switchyard}/trainer-sklearn-model-1:latest",
        "${DOCKER_INSTANCE:-switchyard}/server-sklearn-model-1:latest",
    }


def test_every_image_that_is_built_is_told_its_base_version_and_origin(compose: dict[str, Any]) -> None:
    built = {name: service["build"] for name, service in compose["services"].items() if "build" in service}
    assert set(built) == {
        "router",
        "mlflow",
        "socket-proxy",
        "trainer-sklearn-model-1",
        "server-sklearn-model-1",
    }
    for build in built.values():
        assert set(build["args"]) == {"PYTHON_IMAGE", "VERSION", "REVISION", "SOURCE"}
    models = {name for name, service in compose["services"].items() if service.get("profiles") == ["models"]}
    assert models == {"trainer-sklearn-model-1", "server-sklearn-model-1"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"${{IMAGE_VERSION:-{version}}}" in TEXT
