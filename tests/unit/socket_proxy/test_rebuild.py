"""Whatever a client sends, what Docker gets stays inside the allow-list."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_proxy.rebuild import Creation, read_creation, rebuild
from socket_proxy.refusal import Refused
from socket_proxy.settings import Settings

SETTINGS = Settings(
    images=("puppet",),
    trainer_network="trainers",
    server_network="servers",
    volume_prefix="data-",
    cache_prefix="cache-",
    max_memory=2**30,
    max_cpus=2,
)
NAME = "default-v1-0123abcd"
LABELS = {"switchyard.owner": "srv_1", "switchyard.role": "server"}
LEAST: dict[str, Any] = {"Image": "puppet", "Labels": LABELS}
MOUNT = {"Type": "volume", "Source": "data-churn", "Target": "/data", "ReadOnly": True}
CACHE = {
    "Type": "volume",
    "Source": "cache-0123456789abcdef",
    "Target": "/var/cache/switchyard",
    "ReadOnly": False,
}
CACHE_OPTIONS = {"Labels": {"switchyard.instance": "switchyard"}}
GPUS = {"Count": -1, "Capabilities": [["gpu"]]}


def made(body: dict[str, Any], settings: Settings = SETTINGS, name: str = NAME) -> dict[str, Any]:
    return rebuild(read_creation(body), name, "puppet:latest", settings)


def made_host(settings: Settings = SETTINGS, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = made(LEAST | {"HostConfig": options}, settings)["HostConfig"]
    return found


# --- whatever comes in -----------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(
            "host",
            "bridge",
            "servers",
            "trainers",
            "container:x",
            "data-x",
            "data-state",
            "cache-0123456789abcdef",
            "/var/cache/switchyard",
            "/",
            "/tmp",
            "/var/run",
        ),
        *(
            "ALL",
            "SYS_ADMIN",
            "volume",
            "bind",
            "no",
            "always",
            "no-new-privileges",
            "seccomp=unconfined",
            "",
        ),
        *("gpu", "size=1m", "exec", "json-file", "syslog", "A=b", "trainer", "server"),
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2**40)
    | st.floats(allow_nan=False)
    | WORDS
    | st.text(max_size=5)
)
KEYS = st.sampled_from([*Creation.model_fields, *MOUNT, "Binds", "Name"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | WORDS, inner, max_size=4),
    max_leaves=6,
)
HOST_FIELDS = sorted(type(Creation.model_fields["HostConfig"].default).model_fields)
HOSTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([*HOST_FIELDS, "Binds", "CapAdd", "PidMode", "privileged"], VALUES),
        "Mounts": VALUES
        | st.lists(st.fixed_dictionaries(dict.fromkeys(MOUNT, WORDS | st.booleans())), max_size=2),
        "Memory": st.integers(-1, 2**32),
        "ReadonlyRootfs": st.booleans(),
        "CapDrop": st.lists(st.sampled_from(["ALL", "NET_RAW"])),
        "Tmpfs": st.dictionaries(WORDS, WORDS, max_size=2),
        "NetworkMode": WORDS,
        "DeviceRequests": st.lists(st.just(GPUS) | VALUES, max_size=2),
    },
)
BODIES = st.fixed_dictionaries(
    {"Image": st.just("puppet") | VALUES, "Labels": st.just(LABELS) | VALUES},
    optional={
        "HostConfig": HOSTS,
        "Env": VALUES | st.lists(st.just("A=b") | st.text(max_size=5), max_size=3),
        "NetworkingConfig": VALUES | st.just({"EndpointsConfig": {"servers": {"Aliases": [NAME]}}}),
        **dict.fromkeys(["User", "Cmd", "Tty", "Volumes", "hostconfig"], VALUES),
    },
)


@given(BODIES)
def test_what_docker_gets_is_inside_the_allow_list(body: dict[str, Any]) -> None:
    try:
        creation = made(body)
    except Refused:
        return
    check_confined(json.loads(json.dumps(creation)))


@given(HOSTS)
def test_options_are_rebuilt_or_refused(options: dict[str, Any]) -> None:
    try:
        creation = made(LEAST | {"HostConfig": options})
    except Refused:
        return
    check_confined(creation)


@pytest.mark.parametrize("asked", [[], ["A=b", "NVIDIA_VISIBLE=x"]])
def test_no_image_gets_gpus_by_its_environment_where_they_are_not_allowed(asked: list[str]) -> None:
    assert made(LEAST | {"Env": asked})["Env"] == [*asked, "NVIDIA_VISIBLE_DEVICES=void"]
    with pytest.raises(Refused, match="GPUs"):
        made(LEAST | {"Env": [*asked, "NVIDIA_VISIBLE_DEVICES=all"]})
    allowed = SETTINGS.model_copy(update={"allow_gpus": True})
    every = [*asked, "NVIDIA_VISIBLE_DEVICES=all"]
    assert made(LEAST | {"Env": every}, allowed)["Env"] == every


def check_confined(creation: dict[str, Any]) -> None:
    assert creation["Env"][-1] == "NVIDIA_VISIBLE_DEVICES=void"
    assert set(creation) == {"Image", "Env", "Labels", "HostConfig", "NetworkingConfig"}
    assert creation["Labels"]["switchyard.instance"] == "switchyard"
    assert creation["NetworkingConfig"] == {"EndpointsConfig": {"servers": {"Aliases": [NAME]}}} or (
        creation["Labels"]["switchyard.role"] == "trainer"
    )
    host = creation["HostConfig"]
    fixed = {key: value for key, value in made_host().items() if key not in CHOSEN}
    assert {key: host[key] for key in fixed} == fixed
    assert set(host) == set(fixed) | CHOSEN
    assert host["NetworkMode"] in ("servers", "trainers")
    assert 0 < host["Memory"] == host["MemorySwap"] <= SETTINGS.max_memory
    assert 0 < host["NanoCpus"] <= SETTINGS.max_cpus * 10**9
    assert 0 < host["PidsLimit"] <= SETTINGS.max_pids
    assert host["DeviceRequests"] == []
    assert set(host["Tmpfs"]) <= {"/tmp"}
    for mount in host["Mounts"]:
        assert mount["Type"] == "volume"
        if not mount["ReadOnly"]:
            assert mount == {**CACHE, "VolumeOptions": CACHE_OPTIONS}
            assert creation["Labels"]["switchyard.role"] == "server"
            continue
        assert mount["Source"].startswith("data-")
        assert "state" not in mount["Source"]
        assert mount["VolumeOptions"] == {"NoCopy": True}


CHOSEN = {
    *("NetworkMode", "Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Mounts", "Tmpfs", "DeviceRequests"),
    *("LogConfig", "ReadonlyRootfs"),
}


# --- what is made of what is asked for -------------------------------------------------------------------


def test_the_least_is_confined_and_limited_by_the_settings() -> None:
    host = made(LEAST)["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (2**30, 2**30, 2 * 10**9)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}}
    assert (host["Privileged"], host["CapDrop"], host["SecurityOpt"]) == (
        False,
        ["ALL"],
        ["no-new-privileges"],
    )
    assert (host["ReadonlyRootfs"], host["Tmpfs"], host["Mounts"]) == (False, {}, [])


def test_less_than_the_most_is_granted() -> None:
    rotation = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    host = made_host(Memory=2**20, NanoCpus=10**8, PidsLimit=7, LogConfig=rotation)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        2**20,
        2**20,
        10**8,
        7,
    )
    assert host["LogConfig"]["Config"] == {"max-size": "1048576", "max-file": "2"}


def test_the_role_decides_the_network() -> None:
    labels = LABELS | {"switchyard.role": "trainer"}
    assert made(LEAST)["HostConfig"]["NetworkMode"] == "servers"
    assert made(LEAST | {"Labels": labels})["HostConfig"]["NetworkMode"] == "trainers"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"EndpointsConfig": {}},
        {"EndpointsConfig": {"servers": None}},
        {"EndpointsConfig": {"servers": {"Aliases": [NAME]}}},
        {"servers": None},
    ],
)
def test_the_network_may_be_said_in_all_the_ways_of_the_sdk(asked: dict[str, Any]) -> None:
    assert made(LEAST | {"NetworkingConfig": asked}) == made(LEAST)


@pytest.mark.parametrize(
    "asked",
    [
        {"bridge": None},
        {"servers": {"IPAMConfig": {"IPv4Address": "10.0.0.1"}}},
        {"EndpointsConfig": {"servers": {"Aliases": ["mlflow"]}}},
        {"EndpointsConfig": {"servers": None, "trainers": None}},
        {"endpointsConfig": {"bridge": {}}},
    ],
)
def test_no_other_network_alias_or_address_is_granted(asked: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="NetworkingConfig"):
        made(LEAST | {"NetworkingConfig": asked})


def test_a_data_volume_is_mounted_to_read_and_never_filled_from_the_image() -> None:
    assert made_host(Mounts=[MOUNT])["Mounts"] == [MOUNT | {"VolumeOptions": {"NoCopy": True}}]


def test_a_server_gets_its_models_cache_to_write_to() -> None:
    assert made_host(Mounts=[CACHE])["Mounts"] == [CACHE | {"VolumeOptions": CACHE_OPTIONS}]


@pytest.mark.parametrize(
    "changes",
    [
        {"Source": "data-churn"},
        {"Source": "cache-"},
        {"Source": "cache-0123456789abcdef0"},
        {"Source": "cache-0123456789ABCDEF"},
        {"Source": "mlflow"},
        {"Target": "/var/cache"},
        {"Target": "/venv"},
    ],
)
def test_nothing_else_is_mounted_to_be_written_to(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="nothing may be written to"):
        made_host(Mounts=[CACHE | changes])


def test_no_trainer_gets_a_cache() -> None:
    labels = LABELS | {"switchyard.role": "trainer"}
    with pytest.raises(Refused, match="nothing may be written to"):
        made(LEAST | {"Labels": labels, "HostConfig": {"Mounts": [CACHE]}})


@pytest.mark.parametrize("name", ["data-state", "data-my-slots-2", "data-caddy", "data-admin", "data-mlflow"])
def test_a_forbidden_volume_stays_so_with_any_prefix(name: str) -> None:
    settings = SETTINGS.model_copy(update={"volume_prefix": name})
    with pytest.raises(Refused, match="is not one for data"):
        made_host(settings, Mounts=[MOUNT | {"Source": name}])


@pytest.mark.parametrize("asked", [GPUS, GPUS | {"Count": 2}])
def test_gpus_are_granted_where_they_are_allowed(asked: dict[str, Any]) -> None:
    settings = SETTINGS.model_copy(update={"allow_gpus": True})
    assert made_host(settings, DeviceRequests=[asked])["DeviceRequests"] == [asked]


@pytest.mark.parametrize(
    "asked",
    [
        GPUS | {"Count": 0},
        GPUS | {"Count": -2},
        GPUS | {"Driver": "evil"},
        GPUS | {"Options": {"a": "b"}},
        GPUS | {"DeviceIDs": ["0"]},
        GPUS | {"Capabilities": [["gpu"], ["all"]]},
    ],
)
def test_nothing_else_is_granted_as_a_gpu(asked: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="DeviceRequests"):
        made_host(SETTINGS.model_copy(update={"allow_gpus": True}), DeviceRequests=[asked])


def test_a_read_only_root_comes_with_a_place_for_temporary_files() -> None:
    host = made_host(SETTINGS.model_copy(update={"read_only_root": True}))
    assert (host["ReadonlyRootfs"], host["Tmpfs"]) == (True, {"/tmp": "rw,nosuid,nodev,size=67108864"})


def test_a_reason_names_the_place_and_no_value() -> None:
    with pytest.raises(Refused) as refused:
        read_creation(LEAST | {"Env": ["PASSWORD=hunter2", "hunter2"], "HostConfig": {}})
    assert refused.value.reason.startswith("Env.1: ")
    assert "hunter2" not in refused.value.reason
    with pytest.raises(Refused, match=r"^HostConfig\.'bi nds\\n': may not be set$"):
        read_creation(LEAST | {"HostConfig": {"bi nds\n": []}})
