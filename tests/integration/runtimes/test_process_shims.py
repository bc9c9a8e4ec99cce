"""The shim ends a whole family, keeps its output within bounds, and is missed by nobody when it is killed."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
from anyio import to_thread

from router.runtimes.base import Role, WorkloadStatus
from router.runtimes.process import ProcessRuntime
from router.runtimes.process_launch import LOG_BYTES
from tests.contract.runtime_stages import Listener
from tests.integration.runtimes.workshop import (
    FOREVER,
    Workshop,
    is_running,
    launch,
    make_pipe,
    run_to_end,
    wait_for_end,
)

pytestmark = pytest.mark.anyio

FAMILY = """
import os, signal, subprocess, sys
STAY = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True); signal.pause()"
FOREVER = [sys.executable, "-c", STAY]
first = subprocess.Popen(FOREVER, stdout=subprocess.PIPE)
far = subprocess.Popen(FOREVER, start_new_session=True, stdout=subprocess.PIPE)
for process in (first, far):
    process.stdout.readline()
open(TOLD, "w").write(f"{first.pid} {far.pid}")
END
"""
FLOOD_BYTES = 100 * 2**20
SHIM_LIMIT_BYTES = 16 * 2**20


async def start_family(workshop: Workshop, runtime: ProcessRuntime, end: str) -> list[int]:
    """Pids of a trainer's two children that ignore SIGTERM; one is in a session of its own."""
    told = make_pipe(workshop.directory / "told")
    script = FAMILY.replace("TOLD", repr(str(told))).replace("END", end)
    workshop.add_source("family", script)
    await launch(runtime, "trn_1", "family")
    return [int(pid) for pid in (await to_thread.run_sync(told.read_text)).split()]


async def test_children_of_a_child_that_ends_are_ended(workshop: Workshop, runtime: ProcessRuntime) -> None:
    listener = Listener(runtime)
    pids = await start_family(workshop, runtime, "sys.exit(4)")

    await listener.wait_for("trn_1")

    assert not any(is_running(pid) for pid in pids)
    state = await runtime.inspect("trn_1")
    assert state is not None
    assert state.exit_code == 4


async def test_children_of_a_child_that_is_stopped_are_ended(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    pids = await start_family(workshop, runtime, "signal.pause()")

    await runtime.stop("trn_1", 30)

    assert not any(is_running(pid) for pid in pids)


async def test_a_killed_shim_takes_the_whole_family_with_it(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    listener = Listener(runtime)
    pids = await start_family(workshop, runtime, "signal.pause()")
    child = workshop.pid("trn_1")

    workshop.kill_shim("trn_1")
    await listener.wait_for("trn_1")

    state = await runtime.inspect("trn_1")
    assert state is not None
    assert (state.status, state.exit_code, state.out_of_memory) == (WorkloadStatus.EXITED, None, None)
    assert not any(is_running(pid) for pid in (child, *pids))


async def test_a_shim_killed_while_no_router_was_there_is_found_out(workshop: Workshop) -> None:
    router = workshop.make_runtime()
    await router.start()
    pids = await start_family(workshop, router, "signal.pause()")
    await router.close()
    workshop.kill_shim("trn_1")
    await to_thread.run_sync(wait_for_end, workshop.pid("trn_1", "shim"))

    router = workshop.make_runtime()
    await router.start()

    state = await router.inspect("trn_1")
    assert state is not None
    assert (state.status, state.exit_code) == (WorkloadStatus.EXITED, None)
    assert not any(is_running(pid) for pid in pids)
    await router.close()


async def test_a_shim_that_does_not_react_does_not_keep_a_child_alive(
    workshop: Workshop, runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.runtimes.process.KILL_SECONDS", 0.2)
    workshop.add_source("server", FOREVER)
    await launch(runtime, "srv_1", "server")
    child = workshop.pid("srv_1")
    os.kill(workshop.pid("srv_1", "shim"), signal.SIGSTOP)

    await runtime.stop("srv_1", 0.2)

    assert not is_running(child)
    state = await runtime.inspect("srv_1")
    assert state is not None
    assert state.status is WorkloadStatus.EXITED


async def test_a_process_that_has_the_pids_of_a_dead_one_is_neither_taken_for_it_nor_touched(
    workshop: Workshop,
) -> None:
    workshop.add_source("server", FOREVER)
    router = workshop.make_runtime()
    await router.start()
    await launch(router, "srv_1", "server")
    await router.close()
    workshop.kill_shim("srv_1")
    await to_thread.run_sync(wait_for_end, workshop.pid("srv_1", "shim"))
    with start_stranger() as stranger:
        record = f'{{"shim": {stranger.pid}, "child": {stranger.pid}, "started_at": 1.0}}'
        (workshop.home("srv_1") / "started.json").write_text(record)

        router = workshop.make_runtime()
        await router.start()
        state = await router.inspect("srv_1")
        await router.stop("srv_1", 0)
        await router.remove("srv_1")
        await router.close()

        assert state is not None
        assert (state.status, state.exit_code) == (WorkloadStatus.EXITED, None)
        assert stranger.poll() is None
        stranger.kill()


def start_stranger() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"])


async def test_after_a_reboot_nothing_is_taken_to_run(workshop: Workshop) -> None:
    workshop.add_source("server", FOREVER)
    router = workshop.make_runtime()
    await router.start()
    await launch(router, "srv_1", "server")
    await router.stop("srv_1", 30)
    await router.close()
    # As the power left it: records of a start, none of an end, and a pid 1 that lives.
    (workshop.home("srv_1") / "ended.json").unlink()
    (workshop.home("srv_1") / "started.json").write_text('{"shim": 1, "child": 1, "started_at": 1.0}')

    router = workshop.make_runtime()
    await router.start()
    state = await router.inspect("srv_1")
    await router.close()

    assert state is not None
    assert (state.status, state.exit_code) == (WorkloadStatus.EXITED, None)


async def test_a_flood_of_output_leaves_disk_and_memory_as_they_were(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    hold = make_pipe(workshop.directory / "hold")
    lines = FLOOD_BYTES // 1024
    workshop.add_source(
        "flood",
        "import os, sys\n"
        f"for number in range({lines}): os.write(1, b'%8d' % number + b'x' * 1015 + b'\\n')\n"
        f"open({str(hold)!r}, 'w').write('written')\n"
        f"open({str(hold)!r}).read()\n",
    )
    listener = Listener(runtime)
    await launch(runtime, "trn_1", "flood")
    assert await to_thread.run_sync(hold.read_text) == "written"
    shim = psutil.Process(workshop.pid("trn_1", "shim"))

    logs = list(workshop.home("trn_1").glob("output.log*"))
    assert sum(log.stat().st_size for log in logs) <= 2 * LOG_BYTES
    assert shim.memory_info().rss < SHIM_LIMIT_BYTES

    await to_thread.run_sync(hold.write_text, "end")
    await listener.wait_for("trn_1")
    tail = await runtime.logs("trn_1", 2048)
    assert f"{lines - 2:8d}x" in tail
    assert f"{lines - 1:8d}x" in tail
    whole = await runtime.logs("trn_1", 2 * LOG_BYTES)
    numbers = [int(line[:8]) for line in whole.splitlines()[1:]]
    assert numbers == list(range(numbers[0], lines))


async def test_a_child_that_closes_its_output_runs_on(workshop: Workshop, runtime: ProcessRuntime) -> None:
    workshop.add_source("quiet", "import os, sys\nos.close(1)\nos.close(2)\nos._exit(9)")

    assert (await run_to_end(runtime, "trn_1", "quiet")).exit_code == 9


async def test_what_a_child_writes_beside_its_source_is_its_own(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_source(
        "writer", "import os, sys\nthere = os.path.exists('mark')\nopen('mark', 'w')\nsys.exit(there)"
    )

    codes = [(await run_to_end(runtime, f"trn_{n}", "writer")).exit_code for n in range(2)]

    assert codes == [0, 0]


async def test_a_server_is_told_where_to_listen(workshop: Workshop, runtime: ProcessRuntime) -> None:
    told = make_pipe(workshop.directory / "told")
    workshop.add_source(
        "server",
        "import os, signal, socket\n"
        "listener = socket.create_server((os.environ['SERVE_HOST'], int(os.environ['SERVE_PORT'])))\n"
        f"open({str(told)!r}, 'w').write('listening')\n"
        "signal.pause()\n",
    )

    state = await launch(runtime, "srv_1", "server", role=Role.SERVER)

    assert await to_thread.run_sync(Path(told).read_text) == "listening"
    host, _, port = str(state.address).rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        assert connection.getpeername() == (host, int(port))


async def test_ends_are_heard_where_the_kernel_does_not_tell_them(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.pidfd_open", raising=False)
    workshop.add_source("brief", "")
    workshop.add_source("server", FOREVER)
    runtime = workshop.make_runtime()
    await runtime.start()

    ended = await run_to_end(runtime, "trn_1", "brief")
    await launch(runtime, "srv_1", "server")
    await runtime.stop("srv_1", 30)
    stopped = await runtime.inspect("srv_1")
    await runtime.close()

    assert ended.exit_code == 0
    assert stopped is not None
    assert stopped.exit_code == 128 + signal.SIGTERM
