"""Requests that two readers could read in two ways, sent byte by byte. None gets anything into the engine."""

import json
from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from tests.integration.docker.installation import Installation
from tests.services.engine import BASE_IMAGE


@pytest.fixture(scope="module")
def ours(installation: Installation) -> Iterator[Container]:
    """A running container that the router may stop: what is wrong with these requests is only their form."""
    container = installation.launch()
    yield container
    container.remove(force=True)


@pytest.fixture
def attempted(installation: Installation, ours: Container) -> Iterator[Installation]:
    installation.relay.forget()
    yield installation
    changing = [line for line in installation.relay.requests() if not line.startswith("GET ")]
    assert changing == []
    ours.reload()
    assert ours.status == "running"


def request(line: str, *headers: str, body: str = "") -> str:
    return "\r\n".join([line, "Host: docker", *headers, "", body])


TARGETS = [
    "//containers/OURS/stop",
    "/containers//OURS/stop",
    "/containers/OURS//stop",
    "/containers/OURS/stop/",
    "/containers/OURS/stop//",
    "/./containers/OURS/stop",
    "/containers/./OURS/stop",
    "/x/../containers/OURS/stop",
    "/containers/OURS/../OURS/stop",
    "/containers/OURS/json/../stop",
    "/containers/OURS%2fstop",
    "/containers/OURS/%73top",
    "/containers%2fOURS/stop",
    "/%2e%2e/containers/OURS/stop",
    "/containers/OURS/stop%00",
    "/containers/OURS/stop%0a",
    "/containers/OURS/stop%20",
    "/containers/OURS/stop%2540",
    "/containers/OURS/stop#x",
    "/containers/OURS/stop;x",
    "/containers/OURS/stop\\x",
    "/containers\\OURS\\stop",
    "\\containers\\OURS\\stop",
    "/CONTAINERS/OURS/stop",
    "/containers/OURS/Stop",
    "/v1.41/v1.41/containers/OURS/stop",
    "/v1.41//containers/OURS/stop",
    "/v1.41/../containers/OURS/stop",
    "/v1.24/containers/OURS/stop",
    "/v1.0/containers/OURS/stop",
    "/v1/containers/OURS/stop",
    "/v2.0/containers/OURS/stop",
    "/V1.41/containers/OURS/stop",
    "/v1.41.0/containers/OURS/stop",
    "/v1.041/containers/OURS/stop",
    "http://docker/containers/OURS/stop",
    "unix:///containers/OURS/stop",
    "containers/OURS/stop",
    "*",
    "/containers/OURS/stop?t=1&t=2",
    "/containers/OURS/stop?t=-1",
    "/containers/OURS/stop?t",
    "/containers/OURS/stop?t=1;signal=KILL",
    "/containers/OURS/stop?&",
    "/containers/OURS/stop?t=%ff",
    "/containers/OURS/stop??t=1",
    "/containers/OURS/stop?detachKeys=x",
    "/containers/OURS/start?detachKeys=x",
    "/containers/OURS/kill?signal=../../x",
    "/containers/OURS,OTHER/stop",
    "/containers/-OURS/stop",
    "/containers/OURS/wait?condition=x",
    "/images/create/../../containers/OURS/stop",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_path_that_is_not_plain_leads_nowhere(
    target: str, attempted: Installation, ours: Container
) -> None:
    line = f"POST {target.replace('OURS', str(ours.name))} HTTP/1.1"
    answer = attempted.proxy.send(request(line, "Content-Length: 0", "Connection: close").encode())
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 403")
    assert attempted.relay.requests() == []


@pytest.mark.parametrize(
    "target",
    [
        "/images/../containers/OURS/json",
        f"/images/x/../{BASE_IMAGE}/json",
        f"/images//{BASE_IMAGE}/json",
        f"/images/{BASE_IMAGE}%2fjson/json",
        f"/images/{BASE_IMAGE}%40sha256:{'0' * 64}/json",
        f"/images/{BASE_IMAGE}%2540sha256:{'0' * 64}/json",
        "/images/x/json/../../json",
    ],
)
def test_a_path_in_the_name_of_an_image_leads_nowhere(
    target: str, attempted: Installation, ours: Container
) -> None:
    status, _ = attempted.proxy.ask("GET", target.replace("OURS", str(ours.name)))
    assert status == 403
    assert attempted.relay.requests() == []


STOP = "POST /containers/OURS/stop HTTP/1.1"
HIDDEN = request(STOP, "Content-Length: 0")
CREATE = "POST /containers/create?name=x-00000000 HTTP/1.1"
TYPE = "Content-Type: application/json"

SMUGGLED = {
    "both lengths": request(
        CREATE,
        TYPE,
        f"Content-Length: {len(HIDDEN) + 5}",
        "Transfer-Encoding: chunked",
        body=f"0\r\n\r\n{HIDDEN}",
    ),
    "both lengths, the other way": request(
        CREATE,
        TYPE,
        "Transfer-Encoding: chunked",
        "Content-Length: 4",
        body=f"2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}",
    ),
    "two lengths": request(CREATE, TYPE, "Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN),
    "a list of lengths": request(CREATE, TYPE, "Content-Length: 0, 9", body=HIDDEN),
    "a signed length": request(CREATE, TYPE, "Content-Length: +2", body="{}" + HIDDEN),
    "a length in hex": request(CREATE, TYPE, "Content-Length: 0x2", body="{}" + HIDDEN),
    "a length of many digits": request(CREATE, TYPE, "Content-Length: " + "9" * 40, body="{}"),
    "another encoding": request(CREATE, TYPE, "Transfer-Encoding: gzip, chunked", body=f"0\r\n\r\n{HIDDEN}"),
    "an encoding with a tab": request(
        CREATE, TYPE, "Transfer-Encoding:\tx\tchunked", body=f"0\r\n\r\n{HIDDEN}"
    ),
    "two encodings": request(
        CREATE, TYPE, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=f"0\r\n\r\n{HIDDEN}"
    ),
    "a space before the colon": request(
        CREATE, TYPE, "Transfer-Encoding : chunked", body=f"0\r\n\r\n{HIDDEN}"
    ),
    "a folded header": request(
        CREATE, TYPE, "X: y", " Transfer-Encoding: chunked", body=f"0\r\n\r\n{HIDDEN}"
    ),
    "a bare CR in a header": request(CREATE, TYPE, "X: y\rTransfer-Encoding: chunked", body=HIDDEN),
    "NUL in a header": request(CREATE, TYPE, "X: y\x00", body=HIDDEN),
    "a negative chunk": request(CREATE, TYPE, "Transfer-Encoding: chunked", body=f"-1\r\n\r\n{HIDDEN}"),
    "a huge chunk": request(CREATE, TYPE, "Transfer-Encoding: chunked", body="f" * 17 + "\r\n{}"),
    "chunks of more than 64 KiB": request(
        CREATE,
        TYPE,
        "Transfer-Encoding: chunked",
        body=("8000\r\n" + " " * 0x8000 + "\r\n") * 3 + "0\r\n\r\n",
    ),
    "a length of more than 64 KiB": request(CREATE, TYPE, "Content-Length: 65537"),
    "a body where none belongs": request(
        "GET /version HTTP/1.1", f"Content-Length: {len(HIDDEN)}", body=HIDDEN
    ),
    "chunks where none belong": request(
        "GET /version HTTP/1.1", "Transfer-Encoding: chunked", body=f"0\r\n\r\n{HIDDEN}"
    ),
    "a refused request before it": request("GET /info HTTP/1.1", body=HIDDEN),
    "a path with a line in it": request(
        f"GET /version HTTP/1.1\r\nX: y\r\n\r\n{STOP}", "Connection: close", "Content-Length: 1", body="x"
    ),
    "a target with a space": request("GET /version /containers/OURS/stop HTTP/1.1"),
    "an upgrade": request(STOP, "Upgrade: tcp", "Connection: Upgrade", "Content-Length: 0"),
    "an upgrade to HTTP/2": request(STOP, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"),
    "an upgrade to a web socket": request(STOP, "Upgrade: websocket", "Connection: Upgrade"),
    "HTTP/2 itself": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two hosts": request(STOP, "Host: other", "Content-Length: 0"),
    "no host": f"{STOP}\r\nContent-Length: 0\r\n\r\n",
    "another method by header": request("GET /info HTTP/1.1", "X-HTTP-Method-Override: POST"),
    "a body of another type": request(CREATE, "Content-Type: text/plain", "Content-Length: 2", body="{}"),
}


@pytest.mark.parametrize("text", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_nothing_is_smuggled_with(text: str, attempted: Installation, ours: Container) -> None:
    answers = attempted.proxy.send(text.replace("OURS", str(ours.name)).encode("latin-1"))

    assert b"HTTP/1.1 101" not in answers
    *first, last = answers.split(b"HTTP/1.1 ")[1:]
    assert [status[:3] for status in first] in ([], [b"200"])
    assert last[:1] in b"45"


def test_a_refusal_has_the_shape_of_dockers_own_errors(attempted: Installation) -> None:
    answer = attempted.proxy.send(request("GET /info HTTP/1.1").encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ncontent-type: application/json" in head.lower()
    assert json.loads(body) == {"message": "there is no such call here"}


def test_a_refusal_is_logged_in_one_line_without_secrets(attempted: Installation) -> None:
    creation = attempted.creation() | {"Env": ["PASSWORD=hunter2", "hunter2\nrefused"]}
    attempted.create(creation, "x-00000000")

    log = attempted.proxy.log.read_text()
    assert "hunter2" not in log
    assert "refused POST '/v1.41/containers/create': Env.1: " in log


def test_a_volume_that_is_a_folder_of_the_host_by_its_options_is_refused(installation: Installation) -> None:
    name = f"{installation.volume_prefix}host"
    installation.engine.volumes.create(name, driver_opts={"type": "none", "o": "bind", "device": "/"})
    creation = installation.creation()
    creation["HostConfig"]["Mounts"] = [
        {"Type": "volume", "Source": name, "Target": "/data", "ReadOnly": True}
    ]
    status, answer = installation.create(creation, installation.new_name())
    assert (status, "made with a driver or options" in answer["message"]) == (403, True)
