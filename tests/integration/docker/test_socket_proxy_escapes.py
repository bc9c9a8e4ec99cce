"""Attempts to get more out of the socket proxy than the router's own work. None reaches the engine.

The proxy's way to the real engine leads through a relay that records what is sent: whatever an attempt is
answered, nothing but look-ups may have gone in.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from docker.models.containers import Container

from tests.integration.docker.installation import Installation
from tests.services.engine import BASE_IMAGE

Body = dict[str, Any]
REFUSED = {400, 403, 413}


@pytest.fixture
def attempted(installation: Installation) -> Iterator[Installation]:
    before = installation.names()
    installation.relay.forget()
    yield installation
    changing = [line for line in installation.relay.requests() if not line.startswith("GET ")]
    assert changing == []
    assert installation.names() == before


@pytest.fixture(scope="module")
def stranger(installation: Installation) -> Iterator[Container]:
    """A running container of somebody else on the same engine."""
    name = f"{installation.id}-victim"
    container = installation.engine.containers.run(installation.image, name=name, detach=True)
    yield container
    container.remove(force=True)


@pytest.fixture(scope="module")
def neighbour(installation: Installation) -> Iterator[Container]:
    """A container of another installation of ours."""
    labels = {"switchyard.owner": "srv_1", "switchyard.role": "server", "switchyard.instance": "another"}
    name = f"{installation.id}-neighbour"
    container = installation.engine.containers.run(installation.image, name=name, labels=labels, detach=True)
    yield container
    container.remove(force=True)


# --- what is created -------------------------------------------------------------------------------------


def host(**options: Any) -> Callable[[Body], Body]:
    return lambda body: body | {"HostConfig": body["HostConfig"] | options}


def top(**members: Any) -> Callable[[Body], Body]:
    return lambda body: body | members


def mount(**changes: Any) -> Callable[[Body], Body]:
    """A mount that would be right but for the changes; PREFIX stands for the prefix of data volumes."""
    right = {"Type": "volume", "Source": "PREFIX-x", "Target": "/data", "ReadOnly": True}
    return host(Mounts=[right | changes])


def labels(**changes: str) -> Callable[[Body], Body]:
    named = {f"switchyard.{name}": value for name, value in changes.items()}
    return lambda body: body | {"Labels": body["Labels"] | named}


BIND_DRIVER = {"Name": "local", "Options": {"type": "none", "o": "bind", "device": "/"}}
GPU = {"Count": -1, "Capabilities": [["gpu"]]}

CREATIONS: dict[str, Callable[[Body], Body]] = {
    "privileged": host(Privileged=True),
    "privileged in lower case": host(privileged=True),
    "host config in another case": top(hostconfig={"Privileged": True}),
    "host config in capitals": top(HOSTCONFIG={"Binds": ["/:/host"]}),
    "a bind": host(Binds=["/:/host"]),
    "the socket as a bind": host(Binds=["/var/run/docker.sock:/var/run/docker.sock"]),
    "a mount of type bind": mount(Type="bind", Source="/"),
    "a bind that calls itself a volume": mount(Source="/"),
    "a volume out of the prefix by dots": mount(Source="PREFIX/../../x"),
    "a volume whose driver is a bind": mount(VolumeOptions={"DriverConfig": BIND_DRIVER}),
    "a volume with options": mount(VolumeOptions={"NoCopy": True}),
    "a mount with options of a bind": mount(BindOptions={"Propagation": "rshared"}),
    "a volume to write to": mount(ReadOnly=False),
    "a cache under another name": mount(Source="CACHE-x", Target="/var/cache/switchyard", ReadOnly=False),
    "a cache elsewhere": mount(Source="CACHE-0123456789abcdef", ReadOnly=False),
    "a volume that says nothing of writing": mount(ReadOnly=None),
    "a volume without the prefix": mount(Source="somebody-else"),
    "a volume without a name": mount(Source=""),
    "the router's state": mount(Source="PREFIX-state"),
    "the slot directories": mount(Source="PREFIX-slots"),
    "the socket of Caddy's admin API": mount(Source="PREFIX-caddy"),
    "MLflow's database": mount(Source="PREFIX-mlflow"),
    "a volume over the root": mount(Target="/"),
    "a volume at a path with dots": mount(Target="/data/../etc"),
    "a mount of type tmpfs": mount(Type="tmpfs"),
    "volumes of another container": host(VolumesFrom=["stranger"]),
    "volumes at the top": top(Volumes={"/host": {}}),
    "a volume driver": host(VolumeDriver="evil"),
    "tmpfs over /etc": host(Tmpfs={"/etc": ""}),
    "tmpfs of its own": host(Tmpfs={"/tmp": "size=1m"}),
    "tmpfs with options": host(Tmpfs={"/tmp": "exec,suid,dev"}),
    "the host's pid namespace": host(PidMode="host"),
    "another container's pid namespace": host(PidMode="container:stranger"),
    "the host's network": host(NetworkMode="host"),
    "another container's network": host(NetworkMode="container:stranger"),
    "the default bridge": host(NetworkMode="bridge"),
    "the other role's network": labels(role="trainer"),
    "a second network": top(NetworkingConfig={"EndpointsConfig": {"bridge": {}}}),
    "a second network as the SDK says it": top(NetworkingConfig={"bridge": None}),
    "the host's ipc namespace": host(IpcMode="host"),
    "the host's user namespace": host(UsernsMode="host"),
    "the host's uts namespace": host(UTSMode="host"),
    "the host's cgroup namespace": host(CgroupnsMode="host"),
    "an added capability": host(CapAdd=["SYS_ADMIN"]),
    "capabilities as one list": host(Capabilities=["all"]),
    "only some capabilities dropped": host(CapDrop=["NET_RAW"]),
    "a device": host(Devices=[{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]),
    "a rule for devices": host(DeviceCgroupRules=["a *:* rwm"]),
    "GPUs where they are not allowed": host(DeviceRequests=[GPU]),
    "another kind of device request": host(DeviceRequests=[GPU | {"Capabilities": [["all"]]}]),
    "no seccomp": host(SecurityOpt=["seccomp=unconfined"]),
    "no AppArmor": host(SecurityOpt=["apparmor=unconfined"]),
    "system paths unmasked": host(SecurityOpt=["systempaths=unconfined"]),
    "new privileges": host(SecurityOpt=["no-new-privileges:false"]),
    "no masked paths": host(MaskedPaths=[]),
    "no read-only paths": host(ReadonlyPaths=[]),
    "another runtime": host(Runtime="evil"),
    "another runtime at the top": top(Runtime="evil"),
    "a cgroup parent": host(CgroupParent="/"),
    "sysctls": host(Sysctls={"kernel.core_pattern": "|/evil"}),
    "ulimits": host(Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": 1}]),
    "groups": host(GroupAdd=["docker"]),
    "no OOM killer": host(OomKillDisable=True),
    "hosts of its own": host(ExtraHosts=["mlflow:1.2.3.4"]),
    "a link": host(Links=["stranger:mlflow"]),
    "a published port": host(PortBindings={"80/tcp": [{"HostPort": "80"}]}),
    "all ports published": host(PublishAllPorts=True),
    "a restart policy": host(RestartPolicy={"Name": "always"}),
    "removed before its end is read": host(AutoRemove=True),
    "another log driver": host(LogConfig={"Type": "syslog", "Config": {"syslog-address": "tcp://evil"}}),
    "a log without end": host(LogConfig={"Type": "json-file", "Config": {"max-size": "100g"}}),
    "a log with labels": host(LogConfig={"Type": "json-file", "Config": {"labels": "x"}}),
    "more memory than allowed": host(Memory=2**60),
    "unlimited memory": host(Memory=-1),
    "memory as a fraction": host(Memory=64e6),
    "memory as text": host(Memory="64m"),
    "memory as truth": host(Memory=True),
    "swap": host(MemorySwap=-1),
    "more processes than allowed": host(PidsLimit=10**6),
    "unlimited processes": host(PidsLimit=0),
    "more CPUs than allowed": host(NanoCpus=10**15),
    "a key that nobody knows": host(Evil=1),
    "another image": top(Image="python:3.13-slim"),
    "another registry": lambda body: top(Image=f"evil.example/{body['Image']}")(body),
    "another image by a path": lambda body: top(Image=f"{body['Image'].split('/')[0]}/a/../b")(body),
    "an image id that is not there": top(Image="sha256:" + "0" * 64),
    "the start of an image id": top(Image="sha256:99"),
    "another image by its bare id": top(Image="0" * 64),
    "no image": top(Image=None),
    "a command": top(Cmd=["sh"]),
    "an entry point": top(Entrypoint=["sh"]),
    "a user": top(User="0:0"),
    "a working directory": top(WorkingDir="/proc"),
    "a health check": top(Healthcheck={"Test": ["CMD", "evil"]}),
    "a shell": top(Shell=["evil"]),
    "a terminal": top(Tty=True, OpenStdin=True),
    "a variable with a second line": top(Env=["A=b\nC=d"]),
    "a variable without a name": top(Env=["=b"]),
    "a label of somebody else": top(Labels={"com.docker.compose.project": "other"}),
    "the label of another installation": labels(instance="another"),
    "no owner": labels(owner=""),
    "no such role": labels(role="admin"),
    "no labels": top(Labels=None),
}


@pytest.mark.parametrize("change", CREATIONS.values(), ids=CREATIONS.keys())
def test_a_container_is_not_created_with(change: Callable[[Body], Body], attempted: Installation) -> None:
    creation = attempted.creation()
    creation["HostConfig"]["NetworkMode"] = attempted.server_network
    text = json.dumps(change(creation)).replace("PREFIX-", attempted.volume_prefix)
    text = text.replace("CACHE-", attempted.cache_prefix)

    status, answer = attempted.create(text.encode(), attempted.new_name())

    assert status in REFUSED | {404}, answer
    assert answer["message"]


OURS = '"Labels":{"switchyard.owner":"srv_1","switchyard.role":"server"}'
TEXTS: dict[str, str | bytes] = {
    "a key twice": '{"Image":"I",LABELS,"HostConfig":{},"HostConfig":{"Privileged":true}}',
    "a key twice further in": '{"Image":"I",LABELS,"HostConfig":{"Privileged":false,"Privileged":true}}',
    "an escaped key": '{"Image":"I",LABELS,"HostConfig":{"Privil\\u0065ged":true}}',
    "a key twice, once escaped": '{"Image":"I",LABELS,"HostConfig":0,"HostConf\\u0069g":{"Privileged":true}}',
    "the image twice": '{"Image":"I","Image":"evil",LABELS}',
    "a key with the long s, which Go folds": '{"Image":"I",LABELS,"Ho\u017ftConfig":{"Privileged":true}}',
    "a key with the kelvin sign": '{"Image":"I",LABELS,"HostConfig":{"Networ\u212aMode":"host"}}',
    "not a number": '{"Image":"I",LABELS,"HostConfig":{"Memory":NaN}}',
    "a comment": '{"Image":"I",LABELS,/* */"HostConfig":{"Privileged":true}}',
    "a trailing comma": '{"Image":"I",LABELS,}',
    "a second value": '{"Image":"I",LABELS}{"HostConfig":{"Privileged":true}}',
    "a list": '[{"Image":"I",LABELS}]',
    "nothing": "",
    "deep nesting": "[" * 30_000,
    "deep nesting in its place": '{"Image":' + '{"a":' * 20 + "1" + "}" * 21,
    "a number of many digits": '{"Image":"I",LABELS,"HostConfig":{"Memory":' + "9" * 20_000 + "}}",
    "half a surrogate pair": '{"Image":"I",LABELS,"Env":["A=\\ud800"]}',
    "NUL in a variable": '{"Image":"I",LABELS,"Env":["A=\\u0000"]}',
    "not UTF-8": b'{"Image":"I\xff"}',
    "UTF-16": '{"Image":"I"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"Image":"I"}',
    "more than 64 KiB": '{"Image":"I",LABELS,"Env":["A=' + "x" * 65_536 + '"]}',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_a_container_is_not_created_from_a_body_with(text: str | bytes, attempted: Installation) -> None:
    content = text if isinstance(text, bytes) else text.replace("LABELS", OURS).encode()

    status, answer = attempted.create(
        content.replace(b'"I"', json.dumps(attempted.image).encode()), "x-00000000"
    )

    assert status in REFUSED, answer
    assert answer["message"]


@pytest.mark.parametrize(
    "name", ["mlflow", "", "../x-00000000", "x-00000000%00", "x-00000000%0a", "a/b-00000000", "-00000000"]
)
def test_a_container_does_not_get_the_name(name: str, attempted: Installation) -> None:
    status, _ = attempted.create(attempted.creation(), name)
    assert status in REFUSED


# --- what is not ours ------------------------------------------------------------------------------------

ON_A_CONTAINER = [
    "GET /json",
    "GET /logs?stdout=1&follow=1",
    "GET /stats",
    "POST /start",
    "POST /stop?t=0",
    "POST /kill?signal=KILL",
    "POST /wait",
    "DELETE ?force=1&v=1",
]


@pytest.mark.parametrize("call", ON_A_CONTAINER)
@pytest.mark.parametrize("by", ["name", "id", "short id", "prefix of a version"])
def test_a_stranger_is_not_touched(call: str, by: str, attempted: Installation, stranger: Container) -> None:
    method, _, rest = call.partition(" ")
    named = {"name": str(stranger.name), "short id": str(stranger.short_id)}.get(by, str(stranger.id))
    version = "/v1.41" if by == "prefix of a version" else ""

    status, answer = attempted.proxy.ask(method, f"{version}/containers/{named}{rest}")

    assert (status, b"not one of ours" in answer) == (403, True)
    stranger.reload()
    assert stranger.status == "running"


@pytest.mark.parametrize("call", ON_A_CONTAINER)
def test_a_container_of_another_installation_is_not_touched(
    call: str, attempted: Installation, neighbour: Container
) -> None:
    method, _, rest = call.partition(" ")
    status, _ = attempted.proxy.ask(method, f"/containers/{neighbour.name}{rest}")
    assert status == 403


@pytest.mark.parametrize(
    "filters",
    [
        '{"label":{"switchyard.owner":true}}',
        '{"name":["victim"]}',
        '{"label":["switchyard.instance"]}',
        '{"label":{"switchyard.owner":false}}',
    ],
)
def test_a_listing_shows_nobody_else_by(
    filters: str, attempted: Installation, stranger: Container, neighbour: Container
) -> None:
    status, answer = attempted.proxy.ask("GET", f"/containers/json?all=1&filters={quote(filters)}")
    assert (status, json.loads(answer)) == (200, [])


@pytest.mark.parametrize(
    "filters", ['{"volume":["x"]}', '{"label":"x"}', '{"label":[1]}', '{"label":["x"],"label":[]}', "[]", "{"]
)
def test_filters_are_refused(filters: str, attempted: Installation) -> None:
    assert attempted.proxy.ask("GET", f"/containers/json?filters={quote(filters)}")[0] in REFUSED


# --- other calls -----------------------------------------------------------------------------------------

CALLS = [
    *("POST /containers/OURS/exec", "POST /exec/x/start", "GET /exec/x/json"),
    *("GET /containers/OURS/archive?path=/", "PUT /containers/OURS/archive?path=/"),
    *("HEAD /containers/OURS/archive?path=/", "GET /containers/OURS/export", "POST /commit?container=OURS"),
    *(
        "POST /containers/OURS/attach?stream=1",
        "GET /containers/OURS/attach/ws",
        "POST /containers/OURS/update",
    ),
    *(
        "POST /containers/OURS/rename?name=mlflow",
        "POST /containers/OURS/restart",
        "POST /containers/OURS/pause",
    ),
    *("POST /containers/OURS/resize?h=1&w=1", "GET /containers/OURS/top", "GET /containers/OURS/changes"),
    *("POST /containers/OURS/copy", "POST /containers/prune", "GET /containers/OURS/checkpoints"),
    *("POST /build", "POST /build/prune", "POST /session", "POST /grpc", "POST /auth"),
    *(
        "DELETE /images/IMAGE",
        "POST /images/IMAGE/push",
        "POST /images/IMAGE/tag?repo=x",
        "POST /images/load",
    ),
    *(
        "GET /images/json",
        "GET /images/get?names=IMAGE",
        "GET /images/IMAGE/get",
        "GET /images/IMAGE/history",
    ),
    *("POST /images/prune", "GET /images/search?term=x", "GET /distribution/IMAGE/json"),
    *("GET /networks", "POST /networks/create", "DELETE /networks/NETWORK", "POST /networks/prune"),
    *("POST /networks/NETWORK/connect", "POST /networks/NETWORK/disconnect"),
    *("GET /volumes", "POST /volumes/create", "DELETE /volumes/x", "POST /volumes/prune"),
    *("POST /swarm/init", "GET /swarm", "POST /swarm/join", "POST /swarm/leave", "GET /swarm/unlockkey"),
    *("GET /services", "POST /services/create", "GET /nodes", "GET /tasks", "GET /secrets", "GET /configs"),
    *("GET /plugins", "POST /plugins/pull?remote=x", "POST /plugins/x/enable", "DELETE /plugins/x"),
    *("GET /info", "GET /system/df", "GET /debug/pprof/", "GET /metrics", "GET /"),
    *("PUT /containers/create", "PATCH /containers/OURS", "OPTIONS /version", "TRACE /version"),
    *("HEAD /containers/json", "POST /version", "get /version", "CONNECT /version"),
]


@pytest.mark.parametrize("call", CALLS)
def test_there_is_no_call(call: str, attempted: Installation) -> None:
    method, _, target = call.partition(" ")
    for word, meant in (("IMAGE", attempted.image), ("NETWORK", attempted.server_network), ("OURS", "x")):
        target = target.replace(word, meant)
    status, _ = attempted.proxy.ask(method, target)
    assert status == 403
    assert attempted.relay.requests() == []


PULLS = [
    "fromImage=python&tag=3.13-slim",
    "fromSrc=http://evil.example/x.tar&repo=IMAGE",
    "fromSrc=-",
    "fromImage=OURS/x&platform=evil",
    "fromImage=OURS/x&repo=python",
    "fromImage=OURS/x&changes=USER+root",
    "fromImage=OURS/x&fromImage=python",
    "fromImage=OURS/x:1&tag=2",
    "fromImage=OURS/x&tag=../../python",
    "fromImage=evil.example/OURS/x",
    "fromImage=OURS/x/y",
    "fromImage=OURS/puppet",  # may be used, and not pulled
    "fromImage=OURS/..",
    "fromImage=sha256&tag=99",
    "fromImage=",
    "",
]


@pytest.mark.parametrize("query", PULLS)
def test_nothing_is_pulled_by(query: str, attempted: Installation) -> None:
    query = query.replace("IMAGE", attempted.image).replace("OURS", attempted.id)
    status, _ = attempted.proxy.ask("POST", f"/images/create?{query}")
    assert status in REFUSED
    assert attempted.relay.requests() == []


def test_nothing_is_imported(attempted: Installation) -> None:
    target = f"/images/create?fromImage={attempted.id}/x"
    assert attempted.proxy.ask("POST", target, b"a tar archive")[0] == 400
    assert attempted.relay.requests() == []


def test_an_image_of_somebody_else_is_not_looked_into(attempted: Installation) -> None:
    base = attempted.engine.images.get(BASE_IMAGE)
    for name in (BASE_IMAGE, str(base.id), str(base.short_id), str(base.id).removeprefix("sha256:")):
        assert attempted.proxy.ask("GET", f"/images/{name}/json")[0] == 403
