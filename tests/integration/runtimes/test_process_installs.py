"""Environments whose packages do not come, and what must not wait for them."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest
from anyio import to_thread

from router.core.errors import LaunchFailed
from router.runtimes.process import ProcessRuntime
from tests.integration.runtimes.test_process_environments import add_locked_source, lock_one_package
from tests.integration.runtimes.workshop import Workshop, launch, run_to_end
from tests.services.ports import find_free_port

pytestmark = pytest.mark.anyio


class SilentIndex:
    """A package index that takes connections and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/simple"
        self.asked = threading.Event()
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._connections.append(self._listener.accept()[0])
                self.asked.set()
        except OSError:
            return  # closed

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()


@pytest.fixture
def index() -> Iterator[SilentIndex]:
    index = SilentIndex()
    yield index
    index.close()


def environments(workshop: Workshop) -> list[Path]:
    return list((workshop.state / "environments").iterdir())


def find_installers(workshop: Workshop) -> list[psutil.Process]:
    folder = str(workshop.state / "environments")
    found = psutil.process_iter(["cmdline", "name"])
    return [p for p in found if p.info["name"] == "uv" and folder in " ".join(p.info["cmdline"] or [])]


def install_from(url: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "PIP_CONFIG_FILE": os.devnull,
        "UV_DEFAULT_INDEX": url,
        "UV_NO_CACHE": "1",
        "UV_HTTP_RETRIES": "0",
    }


async def test_launches_that_wait_for_packages_hold_nobody_up_and_can_be_given_up(
    workshop: Workshop, index: SilentIndex
) -> None:
    runtime = workshop.make_runtime(build_environment=install_from(index.url))
    await runtime.start()
    workshop.add_script("quick", "exit 3")
    for number in range(20):  # more than there are threads
        add_locked_source(workshop, f"hangs-{number}", lock_one_package() + f"# {number}\n")

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(launch, runtime, f"trn_{number}", f"hangs-{number}")
        assert await to_thread.run_sync(index.asked.wait, 60)
        assert (await run_to_end(runtime, "trn_quick", "quick")).exit_code == 3
        assert [state.owner for state in await runtime.list_owned()] == ["trn_quick"]
        assert find_installers(workshop)
        group.cancel_scope.cancel()

    assert find_installers(workshop) == []
    assert environments(workshop) == []
    await runtime.close()


async def test_the_password_of_an_index_is_in_no_error(workshop: Workshop) -> None:
    url = f"http://user:password@127.0.0.1:{find_free_port()}/simple"
    runtime = workshop.make_runtime(build_environment=install_from(url))
    await runtime.start()
    add_locked_source(workshop, "one", lock_one_package())
    with pytest.raises(LaunchFailed) as failure:
        await launch(runtime, "trn_1", "one")
    assert "127.0.0.1" in failure.value.message
    assert "password" not in failure.value.message
    await runtime.close()


async def test_an_environment_whose_python_is_gone_is_made_again(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    add_locked_source(workshop, "one", lock_one_package())
    await run_to_end(runtime, "trn_1", "one")
    [old] = environments(workshop)
    (old / "bin" / "python").unlink()
    assert (await run_to_end(runtime, "trn_2", "one")).exit_code == 0
    await runtime.close()

    next_runtime = workshop.make_runtime()
    await next_runtime.start()
    [new] = environments(workshop)
    assert new != old
    await next_runtime.close()


async def test_what_an_installer_still_writes_is_not_cleared_away(
    workshop: Workshop, index: SilentIndex
) -> None:
    runtime = workshop.make_runtime(build_environment=install_from(index.url))
    await runtime.start()
    add_locked_source(workshop, "hangs", lock_one_package())
    async with anyio.create_task_group() as group:
        group.start_soon(launch, runtime, "trn_1", "hangs")
        assert await to_thread.run_sync(index.asked.wait, 60)
        [half_made] = environments(workshop)
        another = workshop.make_runtime()
        await another.start()
        assert environments(workshop) == [half_made]
        await another.close()
        group.cancel_scope.cancel()
    await runtime.close()
