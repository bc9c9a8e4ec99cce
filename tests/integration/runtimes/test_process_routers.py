"""Children outlive the router that launched them, however it ends, and the next router takes them over."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

from router.core.errors import LaunchFailed
from router.runtimes.base import Role, WorkloadStatus
from router.runtimes.process import ProcessRuntime
from scripts.service_commands import ROOT
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

ENDS_WHEN_TOLD = "import os, sys\nsys.exit(int(open(os.environ['ORDERS']).read()))\n"


def start_router(workshop: Workshop, owner: str, source: str) -> subprocess.Popen[str]:
    module = "tests.integration.runtimes.launching_router"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(workshop.directory), owner, source],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


async def hear(router: subprocess.Popen[str]) -> str:
    assert router.stdout is not None
    return (await to_thread.run_sync(router.stdout.readline)).strip()


def end_router(router: subprocess.Popen[str]) -> None:
    router.kill()
    router.communicate()


async def test_a_killed_router_leaves_its_children_to_the_next_one(workshop: Workshop) -> None:
    workshop.add_source("server", FOREVER)
    router = start_router(workshop, "srv_1", "server")
    assert [await hear(router), await hear(router)] == ["launching", "running"]
    child = workshop.pid("srv_1")

    end_router(router)
    runtime = workshop.make_runtime()
    await runtime.start()
    adopted = await launch(runtime, "srv_1", "server")

    assert adopted.status is WorkloadStatus.RUNNING
    assert workshop.pid("srv_1") == child
    await runtime.stop("srv_1", 30)
    assert not is_running(child)
    state = await runtime.inspect("srv_1")
    assert state is not None
    assert state.exit_code == 128 + signal.SIGTERM
    await runtime.close()


async def test_an_end_that_nobody_watched_is_still_known(workshop: Workshop) -> None:
    orders = make_pipe(workshop.directory / "orders")
    workshop.add_source("trainer", ENDS_WHEN_TOLD.replace("os.environ['ORDERS']", repr(str(orders))))
    router = start_router(workshop, "trn_1", "trainer")
    assert [await hear(router), await hear(router)] == ["launching", "running"]
    end_router(router)

    await to_thread.run_sync(orders.write_text, "42")
    await to_thread.run_sync(wait_for_end, workshop.pid("trn_1", "shim"))

    runtime = workshop.make_runtime()
    await runtime.start()
    state = await runtime.inspect("trn_1")
    await runtime.close()
    assert state is not None
    assert (state.status, state.exit_code) == (WorkloadStatus.EXITED, 42)


async def test_two_routers_that_launch_one_owner_at_once_start_one_child(workshop: Workshop) -> None:
    started = workshop.directory / "started"
    workshop.add_source("trainer", f"open({str(started)!r}, 'a').write('x')")
    routers = [start_router(workshop, "trn_1", "trainer") for _ in range(3)]

    for router in routers:
        assert await hear(router) == "launching"
        assert await hear(router) in {"running", "exited"}
        end_router(router)
    await to_thread.run_sync(wait_for_end, workshop.pid("trn_1", "shim"))
    assert started.read_text() == "x"


async def test_launches_of_one_owner_at_once_start_one_child(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    started = workshop.directory / "started"
    workshop.add_source("trainer", f"open({str(started)!r}, 'a').write('x')")
    listener = Listener(runtime)

    states = await asyncio.gather(*(launch(runtime, "trn_1", "trainer") for _ in range(5)))

    assert len({state.started_at for state in states}) == 1
    await listener.wait_for("trn_1")
    assert started.read_text() == "x"


@pytest.mark.parametrize("milliseconds", range(0, 90, 15))
async def test_a_router_killed_at_any_moment_of_a_launch_leaves_one_child_at_most(
    workshop: Workshop, milliseconds: int
) -> None:
    started = workshop.directory / "started"
    workshop.add_source("trainer", f"open({str(started)!r}, 'a').write('x')")
    router = start_router(workshop, "trn_1", "trainer")
    assert await hear(router) == "launching"
    await asyncio.sleep(milliseconds / 1000)  # whenever it is, what follows holds
    end_router(router)

    runtime = workshop.make_runtime()
    await runtime.start()
    state = await launch(runtime, "trn_1", "trainer")
    await to_thread.run_sync(wait_for_end, workshop.pid("trn_1", "shim"))

    ended = await runtime.inspect("trn_1")
    assert ended is not None
    assert (ended.exit_code, ended.started_at) == (0, state.started_at)
    assert started.read_text() == "x"
    await runtime.close()


async def test_a_launch_that_was_cut_short_is_done_again(workshop: Workshop) -> None:
    workshop.add_source("trainer", "print('done')")
    home = workshop.home("trn_1")
    (home / "work").mkdir(parents=True)
    (home / "order.json.tmp").write_text('{"half": "written')

    runtime = workshop.make_runtime()
    await runtime.start()
    state = await run_to_end(runtime, "trn_1", "trainer")
    await runtime.close()

    assert state.exit_code == 0


async def test_a_deletion_that_was_cut_short_is_finished(workshop: Workshop) -> None:
    left = workshop.state / "workloads" / ".gone-0123456789abcdef"
    (left / "work").mkdir(parents=True)

    runtime = workshop.make_runtime()
    await runtime.start()

    assert not left.exists()
    assert await runtime.list_owned() == []
    await runtime.close()


async def test_a_command_that_cannot_be_run_starts_nothing(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    folder = workshop.add_source("broken", "")
    (folder / "source.toml").write_text('train = ["no-such-program"]\n')

    with pytest.raises(LaunchFailed, match="no-such-program: No such file"):
        await launch(runtime, "trn_1", "broken")
    with pytest.raises(LaunchFailed, match="does not say how to `serve`"):
        await launch(runtime, "srv_1", "broken", role=Role.SERVER)

    assert list((workshop.state / "workloads").iterdir()) == []


async def test_the_end_of_a_child_that_ends_at_once_is_told(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_source("brief", "")
    listener = Listener(runtime)

    for number in range(5):
        await launch(runtime, f"trn_{number}", "brief")
        await listener.wait_for(f"trn_{number}")

    assert listener.heard == [f"trn_{number}" for number in range(5)]


async def test_a_child_gets_what_it_needs_and_nothing_of_the_router(
    workshop: Workshop, runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    told = make_pipe(workshop.directory / "told")
    says = "json.dumps([dict(os.environ), sys.argv, os.getcwd()])"
    workshop.add_source("teller", f"import json, os, sys\nopen({str(told)!r}, 'w').write({says})")

    await launch(runtime, "trn_1", "teller", env={"MLFLOW_RUN_ID": "r1", "EMPTY": ""})

    env, arguments, directory = json.loads(await to_thread.run_sync(told.read_text))
    scratch = Path(env["TMPDIR"])
    assert (env["MLFLOW_RUN_ID"], env["EMPTY"]) == ("r1", "")
    assert "DATABASE_PASSWORD" not in env
    assert env["PYTHONUNBUFFERED"] == "1"
    assert len(str(scratch)) < 50
    assert await to_thread.run_sync(scratch.is_dir)
    assert arguments == ["run.py"]
    assert Path(directory).is_relative_to(workshop.home("trn_1"))
    await runtime.remove("trn_1")
    assert not await to_thread.run_sync(scratch.exists)
