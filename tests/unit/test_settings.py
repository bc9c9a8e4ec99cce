"""The router's settings: read from the environment, refused by name."""

import os
import re
from pathlib import Path

import pytest

from router.settings import InvalidSettings, Settings


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the person who runs the tests has set does not count."""
    known = {name.upper() for name in Settings.model_fields}
    for name in [name for name in os.environ if name.upper() in known]:
        monkeypatch.delenv(name)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> "Load":
    return Load(monkeypatch)


class Load:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, **environ: str) -> Settings:
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        return Settings.load()

    def refused(self, **environ: str) -> list[str]:
        with pytest.raises(InvalidSettings) as caught:
            self(**environ)
        assert caught.value.hint == "the router was not started"
        return caught.value.message.splitlines()


def test_every_setting_says_what_it_does() -> None:
    undocumented = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undocumented == []


def test_nothing_has_to_be_set(load: Load) -> None:
    settings = load()
    assert (settings.router_host, settings.router_port) == ("127.0.0.1", 8000)
    assert settings.public_url == "http://localhost:9000"
    assert settings.mlflow_tracking_uri == "http://127.0.0.1:9010"
    assert (settings.runtime, settings.proxy, settings.production_alias) == (
        "process",
        "caddy_slots",
        "deployed",
    )
    assert (settings.process_ports[0], settings.process_ports[-1]) == (20000, 29999)


def test_the_settings_of_the_first_system_are_honoured(load: Load) -> None:
    settings = load(
        MLFLOW_TRACKING_URI="http://mlflow:5000/",
        SPECS_PATH="/app/specs",
        SERVE_IMAGE="sources/server",
        TRAINER_IMAGE="sources/trainer",
        STATE_PATH="/state",
        HEALTH_TIMEOUT_SEC="90",
        DRAIN_GRACE_SEC="1.5",
        TRAINER_TIMEOUT_SEC="1800",
        PROXY_PUBLIC_PORT="9100",
        PROXY_ADMIN_URL="unix//run/caddy/admin.sock",
        PUBLIC_HOST="models.example",
        PRODUCTION_ALIAS="live",
        MLFLOW_SERVICE_PORT="9110",
    )
    assert settings.mlflow_tracking_uri == "http://mlflow:5000"
    assert (settings.specs_path, settings.state_path) == (Path("/app/specs"), Path("/state"))
    assert (settings.serve_image, settings.trainer_image) == ("sources/server", "sources/trainer")
    assert (settings.health_timeout_sec, settings.drain_grace_sec, settings.trainer_timeout_sec) == (
        90,
        1.5,
        1800,
    )
    assert settings.proxy_admin_url == Path("/run/caddy/admin.sock")
    assert settings.public_url == "http://models.example:9100"
    assert settings.production_alias == "live"


def test_what_is_kept_lies_in_the_state_folder_unless_said_otherwise(load: Load) -> None:
    settings = load(STATE_PATH="/state", ACCESS_LOG_PATH="/logs/caddy.log")
    assert settings.store_url == "sqlite:////state/switchyard.db"
    assert settings.slots_path == Path("/state/slots")
    assert settings.caddy_config_path == Path("/state/caddy.json")
    assert settings.proxy_admin_url == Path("/state/caddy-admin.sock")
    assert settings.access_log_path == Path("/logs/caddy.log")


def test_relative_paths_are_taken_from_the_working_directory(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(SPECS_PATH="my/specs", PROXY_ADMIN_URL="/run/a.sock")
    assert settings.project_root == tmp_path
    assert settings.specs_path == tmp_path / "my/specs"


def test_an_empty_variable_counts_as_unset(load: Load) -> None:
    assert load(ROUTER_PORT="", SERVE_IMAGE="").serve_image is None


@pytest.mark.parametrize("written", ["unix//run/a.sock", "unix:///run/a.sock", "/run/a.sock"])
def test_the_admin_socket_may_be_written_in_three_ways(load: Load, written: str) -> None:
    assert load(PROXY_ADMIN_URL=written).proxy_admin_url == Path("/run/a.sock")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("ROUTER_PORT", "99999", "less than or equal to 65535"),
        ("ROUTER_PORT", "http", "valid integer"),
        ("ROUTER_HOST", "http://127.0.0.1", "without a scheme or port"),
        ("SWITCHYARD_TOKEN", "short", "at least 16"),
        ("SWITCHYARD_TOKEN", "sixteen and spaces", "visible ASCII"),
        ("PUBLIC_HOST", "localhost:9000", "without a scheme or port"),
        ("RUNTIME", "kubernetes", "should be 'process' or 'docker'"),
        ("PROXY", "nginx", "should be 'caddy_slots' or 'caddy_admin'"),
        ("MLFLOW_TRACKING_URI", "sqlite:///x.db", "http:// or https://"),
        ("PROXY_ADMIN_URL", "http://proxy:2019", "must be a unix socket"),
        ("PROXY_ADMIN_URL", f"unix//{'x' * 101}", "longer than 100 bytes"),
        ("SLOTS_PATH", "/my slots", "only letters, digits"),
        ("STATE_PATH", __file__, "must be a folder"),
        ("PROCESS_PORTS", "20000", "a range of at least 10 ports"),
        ("PROCESS_PORTS", "30000-20000", "a range of at least 10 ports"),
        ("PROCESS_PORTS", "80-100", "between 1024 and 65535"),
        ("PROCESS_PORTS", "60000-70000", "between 1024 and 65535"),
        ("PROCESS_PORTS", "8000-8100", "the range holds the port 8000 of ROUTER_PORT"),
        ("PROXY_PUBLIC_PORT", "8000", "the port 8000 is that of ROUTER_PORT too"),
        ("SERVE_PORT", "8080", "has no meaning under RUNTIME=process"),
        ("DOCKER_HOST", "ssh://host", "must be unix:///PATH or tcp://HOST:PORT"),
        ("DOCKER_HOST", "tcp://user:secret@host:2375", "must be unix:///PATH or tcp://HOST:PORT"),
        ("DOCKER_INSTANCE", "a=b", "must begin with a letter or digit"),
        ("DOCKER_SERVER_NETWORK", "host", "must be a network of its own"),
        ("DOCKER_VOLUME_PREFIX", "/", "must begin with a letter or digit"),
        ("DOCKER_PIDS_LIMIT", "0", "greater than or equal to 16"),
        ("DOCKER_LOG_MAX_SIZE", "10 MB", "should match pattern"),
        ("PRODUCTION_ALIAS", "latest", "an alias that MLflow takes"),
        ("PRODUCTION_ALIAS", "v1", "an alias that MLflow takes"),
        ("HEALTH_TIMEOUT_SEC", "901", "less than or equal to 900"),
        ("DRAIN_GRACE_SEC", "-1", "greater than or equal to 0"),
        ("WARM_SECONDS", "nan", "finite number"),
        ("TRAINER_TIMEOUT_SEC", "0", "greater than 0"),
        ("LOG_LEVEL", "loud", "'debug', 'info'"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused_by_name(
    load: Load, name: str, value: str, complaint: str
) -> None:
    (said,) = load.refused(**{name: value})
    assert said.startswith(f"{name}: ")
    assert complaint in said


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.168.1.7", "models.example"])  # noqa: S104
@pytest.mark.parametrize("name", ["ROUTER_HOST", "ROUTER_BIND"])
def test_a_router_that_others_can_reach_needs_a_token(load: Load, name: str, host: str) -> None:
    (said,) = load.refused(**{name: host})
    assert said.startswith("SWITCHYARD_TOKEN: must be set")
    assert load(**{name: host}, SWITCHYARD_TOKEN="x" * 16).switchyard_token is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "[::1]", "localhost"])
def test_a_router_inside_a_container_is_judged_by_where_it_is_published(load: Load, host: str) -> None:
    assert load(ROUTER_HOST="router-api", ROUTER_BIND=host).router_host == "router-api"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_containers_are_not_sent_to_themselves_for_mlflow(load: Load, host: str) -> None:
    (said,) = load.refused(RUNTIME="docker", MLFLOW_TRACKING_URI=f"http://{host}:5000")
    assert said.startswith("MLFLOW_TRACKING_URI: under RUNTIME=docker it must be an address for containers")


def test_containers_get_a_port_of_their_own(load: Load) -> None:
    settings = load(RUNTIME="docker", MLFLOW_TRACKING_URI="http://mlflow:5000", SERVE_PORT="8081")
    assert settings.serve_port == 8081


def test_containers_get_mlflows_login_and_no_path_of_this_machine(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "let-me-in")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca.pem")
    inherited = settings.container_environment()
    assert "MLFLOW_TRACKING_TOKEN" in inherited
    assert {"PATH", "HOME", "REQUESTS_CA_BUNDLE"} & set(inherited) == set()


def test_all_wrong_settings_are_named_and_nothing_that_only_follows_from_them(load: Load) -> None:
    said = load.refused(STATE_PATH=__file__, ROUTER_PORT="x", LOG_FORMAT="xml")
    assert sorted(line.split(":")[0] for line in said) == ["LOG_FORMAT", "ROUTER_PORT", "STATE_PATH"]


def test_passwords_do_not_show(load: Load) -> None:
    settings = load(STORE_URL="postgresql://router:hunter2@db/switchyard")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(load(SWITCHYARD_TOKEN="hunter2hunter2hunter2"))  # noqa: S106
    said = load.refused(SWITCHYARD_TOKEN="hunter2")  # noqa: S106
    assert "hunter2" not in " ".join(said)
    said = load.refused(MLFLOW_TRACKING_URI="mlflow://me:hunter2@mlflow")
    assert "hunter2" not in " ".join(said)


def test_settings_do_not_change_while_the_router_runs(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().router_port = 1  # type: ignore[misc]


def test_trainers_and_servers_inherit_what_they_need_and_none_of_the_routers_secrets(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(STORE_URL="postgresql://router:hunter2@db/switchyard")
    for name in ("AWS_SECRET_ACCESS_KEY", "LD_PRELOAD", "PYTHONPATH", "SERVE_IMAGE", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(name, "not for them")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ca.pem")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "let-me-in")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://packages.example/simple")
    inherited = settings.child_environment()
    assert inherited["PATH"] == os.environ["PATH"]
    assert inherited["REQUESTS_CA_BUNDLE"] == "/ca.pem"
    assert inherited["https_proxy"] == "http://proxy:3128"
    assert inherited["MLFLOW_TRACKING_TOKEN"] == "let-me-in"  # noqa: S105  # noqa: S105
    assert not re.search("hunter2|not for them|packages", str(inherited))
    building = settings.build_environment()
    assert building["UV_DEFAULT_INDEX"] == "https://packages.example/simple"
    assert not re.search("hunter2|not for them", str(building))


def test_specs_may_refer_to_any_variable_of_the_router(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "x")
    assert load().spec_variables()["TEAM_TOKEN"] == "x"  # noqa: S105
