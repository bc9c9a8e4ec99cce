"""The version of Docker's API is agreed on with the engine, or it is said why there is none.

Before the real engine stands a relay that pretends to speak other versions: it changes what `/version` says,
and writes the engine's own version over the one that is asked in.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docker import APIClient

from router.core.errors import RuntimeUnavailable
from tests.integration.docker.runtime_house import open_house
from tests.services.docker_puppets import Puppets
from tests.services.recording_relay import RecordingRelay

pytestmark = pytest.mark.anyio


class OtherEngine(RecordingRelay):
    """All versions are of one length, so no answer's changes."""

    def __init__(self, path: Path, target: Path, real: str, newest: str, oldest: str) -> None:
        super().__init__(path, target)
        self._real = real.encode()
        self._said = {b"ApiVersion": newest.encode(), b"MinAPIVersion": oldest.encode()}

    def change_request(self, data: bytes) -> bytes:
        return re.sub(rb"^([A-Z]+ /v)1\.\d\d(?=/)", rb"\g<1>" + self._real, data)

    def change_answer(self, data: bytes) -> bytes:
        for name, said in self._said.items():
            data = re.sub(rb'(?<="%b":")1\.\d\d(?=")' % name, said, data)
        return data


@contextmanager
def pretend(puppets: Puppets, folder: Path, newest: str, oldest: str) -> Iterator[OtherEngine]:
    engine = Path(puppets.docker_host.removeprefix("unix://"))
    with APIClient(puppets.docker_host, version="auto") as docker:
        real = str(docker.version()["ApiVersion"])
    relay = OtherEngine(folder / "docker.sock", engine, real, newest, oldest)
    relay.open()
    try:
        yield relay
    finally:
        relay.close()


@pytest.mark.parametrize(
    ("newest", "oldest", "agreed"),
    [
        ("1.41", "1.12", "1.41"),
        ("1.44", "1.24", "1.44"),
        ("1.52", "1.44", "1.47"),  # the router's own newest
        ("1.47", "1.47", "1.47"),
    ],
)
async def test_every_call_is_made_in_the_newest_version_that_both_speak(
    puppets: Puppets, socket_directory: Path, newest: str, oldest: str, agreed: str
) -> None:
    with pretend(puppets, socket_directory, newest, oldest) as relay:
        async with open_house(puppets, f"unix://{relay.path}") as house:
            await house.launch("trn_1")
            await house.runtime.remove("trn_1")
        asked = [request.partition(" ")[2] for request in relay.requests()]
    assert asked[0].endswith("/version")
    assert len(asked) > 5
    assert {target.split("/")[1] for target in asked[1:]} == {f"v{agreed}"}


@pytest.mark.parametrize(
    ("newest", "oldest", "told"),
    [
        ("1.40", "1.12", "is too old: it speaks its API up to 1.40, the router from 1.41 on"),
        ("1.99", "1.48", "is too new: it speaks its API from 1.48 on, the router up to 1.47"),
    ],
)
async def test_an_engine_without_a_common_version_is_told_as_that(
    puppets: Puppets, socket_directory: Path, newest: str, oldest: str, told: str
) -> None:
    with pretend(puppets, socket_directory, newest, oldest) as relay:
        runtime = puppets.make_runtime("nobody", f"unix://{relay.path}")
        with pytest.raises(RuntimeUnavailable, match=re.escape(told)) as caught:
            await runtime.check()
        await runtime.close()
        assert str(relay.path) in caught.value.message
        assert len(relay.requests()) == 1
