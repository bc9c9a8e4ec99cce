"""A launch comes about or leaves nothing, whatever fails or is cancelled; and what a child is given."""

import json
import shutil
import signal
from pathlib import Path

import anyio
import psutil
import pytest
from anyio.lowlevel import checkpoint

from router.core.errors import LaunchFailed, RuntimeUnavailable
from router.runtimes.base import Image, Role, Workload, WorkloadState
from router.runtimes.process import ProcessRuntime
from tests.contract.runtime_stages import Listener, make_workload
from tests.integration.runtimes.workshop import (
    Workshop,
    is_running,
    launch,
    read_pipe,
    run_to_end,
    write_pipe,
)

pytestmark = pytest.mark.anyio

SECRET = "s3cret-of-the-trainer"  # noqa: S105 - looked for on the disk
WAITS = ': > "$READY"; read code < "$FINISH"; exit "$code"'
FOR_EVER = "sleep 1000"


def assert_nothing_is_left(workshop: Workshop) -> None:
    assert list((workshop.state / "workloads").iterdir()) == []
    found = psutil.process_iter(["cwd", "status"])
    assert not [
        process.pid
        for process in found
        if str(process.info["cwd"]).startswith(str(workshop.state))
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def prepare(runtime: ProcessRuntime, owner: str, source: str, env: dict[str, str]) -> Workload:
    image: Image = await runtime.resolve_image(source)
    return make_workload(owner, Role.TRAINER, image, env)


async def inspect(runtime: ProcessRuntime, owner: str) -> WorkloadState:
    state = await runtime.inspect(owner)
    assert state is not None
    return state


# --- what a child is given -----------------------------------------------------------------------------


async def test_a_child_inherits_no_descriptors_and_no_ignored_signals(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_script(
        # Those of grep itself, which it has from the shell: that blocks them all while it starts another.
        "tells",
        "ls /proc/$$/fd; readlink /proc/$$/fd/0; grep -E 'SigIgn|SigBlk' /proc/self/status",
    )
    await run_to_end(runtime, "trn_1", "tells")
    told = (await runtime.logs("trn_1", 1000)).split()
    assert told[:4] == ["0", "1", "2", "/dev/null"]
    # The C library keeps two signals to itself and lets nobody change them: what ignores them is not us.
    kept_back = sum(1 << number - 1 for number in range(1, 65) if number not in signal.valid_signals())
    assert [int(told[place], 16) & ~kept_back for place in (5, 7)] == [0, 0]


async def test_secrets_are_in_no_file_and_in_no_other_process(
    workshop: Workshop, runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_URL", "postgresql://router:password@store/switchyard")
    pipes = workshop.make_pipes("READY", "FINISH")
    await launch(runtime, "trn_1", workshop.add_script("waits", WAITS), env={"SECRET": SECRET, **pipes})
    await read_pipe(pipes["READY"])
    files = [path for path in workshop.directory.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert psutil.Process(workshop.pid("trn_1")).environ()["SECRET"] == SECRET
    shim = psutil.Process(workshop.pid("trn_1", "shim"))
    assert (shim.environ(), SECRET in " ".join(shim.cmdline())) == ({}, False)


async def test_nobody_else_can_look_into_a_workload(workshop: Workshop, runtime: ProcessRuntime) -> None:
    await run_to_end(runtime, "trn_1", workshop.add_script("quick", "echo secret"))
    home = workshop.home("trn_1")
    assert {folder.stat().st_mode & 0o777 for folder in (home, home.parent)} == {0o700}


async def test_what_is_no_text_is_kept_as_text_that_a_store_takes(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    await run_to_end(runtime, "trn_1", workshop.add_script("binary", r"printf 'a\000b\377c ü\n'"))
    unknown = "\N{REPLACEMENT CHARACTER}"
    assert await runtime.logs("trn_1", 100) == f"a{unknown}b{unknown}c ü\n"
    assert await runtime.logs("trn_1", 2) == "\n"  # not half a letter


async def test_errors_stand_where_they_came(workshop: Workshop, runtime: ProcessRuntime) -> None:
    await run_to_end(runtime, "trn_1", workshop.add_script("both", "echo one; echo two >&2; echo three"))
    assert await runtime.logs("trn_1", 100) == "one\ntwo\nthree\n"


# --- failures leave nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program", "x"], "no-such-program: No such file or directory"),
        (["./not-executable.sh"], "not-executable.sh: Permission denied"),
        (["/bin/sh", "-c", "exit 0\0"], "/bin/sh: embedded null byte"),
    ],
)
async def test_a_command_that_cannot_run_fails_the_launch_with_the_reason(
    workshop: Workshop, runtime: ProcessRuntime, command: list[str], words: str
) -> None:
    workshop.add_command("broken", *command, files={"not-executable.sh": "exit 0"})
    listener = Listener(runtime)
    with pytest.raises(LaunchFailed, match=words):
        await launch(runtime, "trn_1", "broken")
    assert await runtime.list_owned() == []
    assert_nothing_is_left(workshop)
    assert listener.heard == []


async def test_an_environment_that_is_too_large_fails_the_launch(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_script("quick", "exit 0")
    with pytest.raises(LaunchFailed, match="Argument list too long"):
        await launch(runtime, "trn_1", "quick", env={"BIG": "x" * 4_000_000})
    assert_nothing_is_left(workshop)


async def test_a_shim_that_breaks_fails_the_launch_with_its_words(
    workshop: Workshop, runtime: ProcessRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = workshop.directory / "shim.py"
    broken.write_text("raise SystemExit('no shim today')")
    monkeypatch.setattr("router.runtimes.process_launch.SHIM", broken)
    with pytest.raises(LaunchFailed, match="no shim today"):
        await launch(runtime, "trn_1", workshop.add_script("quick", "exit 0"))
    assert_nothing_is_left(workshop)


async def test_what_failed_can_be_launched_again(workshop: Workshop, runtime: ProcessRuntime) -> None:
    with pytest.raises(LaunchFailed):
        await launch(runtime, "trn_1", workshop.add_command("source", "no-such-program"))
    state = await run_to_end(runtime, "trn_1", workshop.add_script("source", "exit 6"))
    assert state.exit_code == 6


async def test_no_port_is_given_out_twice_before_its_server_listens(workshop: Workshop) -> None:
    workshop.add_script("waits", FOR_EVER)
    runtime = workshop.make_runtime()
    await runtime.start()
    first = await launch(runtime, "srv_1", "waits", role=Role.SERVER)
    port = int(str(first.address).rpartition(":")[2])
    await runtime.close()

    runtime = workshop.make_runtime(ports=range(port, port + 3))
    await runtime.start()
    for owner in ("srv_2", "srv_3"):
        await launch(runtime, owner, "waits", role=Role.SERVER)
    with pytest.raises(LaunchFailed, match="ports for servers is taken"):
        await launch(runtime, "srv_4", "waits", role=Role.SERVER)
    await runtime.remove("srv_2")
    await launch(runtime, "srv_4", "waits", role=Role.SERVER)
    assert len({state.address for state in await runtime.list_owned()}) == 3
    await runtime.close()


async def test_folders_that_a_trainer_made_unchangeable_go_with_it(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    script = 'mkdir -p a/b; touch a/b/c "$TMPDIR/d"; ln -s / a/b/root; chmod 500 a/b a; exit 0'
    await run_to_end(runtime, "trn_1", workshop.add_script("locks", script))
    scratch = json.loads((workshop.home("trn_1") / "order.json").read_text())["scratch"]
    assert is_there(scratch)
    await runtime.remove("trn_1")
    assert_nothing_is_left(workshop)
    assert not is_there(scratch)


def is_there(folder: str) -> bool:
    return Path(folder).exists()


# --- cancellation, and everything at once --------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 4, 16, 64, 256, 1024, 4096])
async def test_a_launch_that_is_cancelled_is_watched_or_never_was(
    workshop: Workshop, runtime: ProcessRuntime, turns: int
) -> None:
    """Cancelled after so many turns of the event loop: before it, in the middle of it, after it."""
    pipes = workshop.make_pipes("READY", "FINISH")
    listener = Listener(runtime)
    workload = await prepare(runtime, "trn_1", workshop.add_script("waits", WAITS), pipes)
    async with anyio.create_task_group() as group:
        group.start_soon(runtime.launch, workload)
        for _ in range(turns):
            await checkpoint()
        group.cancel_scope.cancel()
    if not await runtime.list_owned():
        assert_nothing_is_left(workshop)
        return
    await read_pipe(pipes["READY"])
    await write_pipe(pipes["FINISH"], "5\n")
    await listener.wait_for("trn_1")
    assert (await inspect(runtime, "trn_1")).exit_code == 5


async def test_launches_and_removals_at_once_leave_all_of_it_or_nothing(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_script("waits", FOR_EVER)
    for number in range(6):
        workload = await prepare(runtime, f"trn_{number}", "waits", {})
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(runtime.launch, workload)
                group.start_soon(runtime.remove, workload.owner)
        for state in await runtime.list_owned():
            assert state.running
            await runtime.remove(state.owner)
        assert_nothing_is_left(workshop)


async def test_many_launches_leak_no_descriptors_and_tell_every_end_once(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_script("quick", "exit 0")
    listener = Listener(runtime)

    async def run_once(number: int) -> None:
        await launch(runtime, f"trn_{number}", "quick")
        await listener.wait_for(f"trn_{number}")
        await runtime.remove(f"trn_{number}")

    async def run_some(numbers: range) -> int:
        async with anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(run_once, number)
        return psutil.Process().num_fds()

    assert await run_some(range(10)) == await run_some(range(10, 40))
    assert sorted(listener.heard) == sorted(f"trn_{number}" for number in range(40))


async def test_what_a_killed_router_left_half_made_goes_at_the_next_start(workshop: Workshop) -> None:
    runtime = workshop.make_runtime()
    await runtime.start()
    await run_to_end(runtime, "trn_kept", workshop.add_script("quick", "exit 0"))
    await runtime.close()
    half = workshop.home("trn_half")
    (half / "work").mkdir(parents=True)
    order = json.loads((workshop.home("trn_kept") / "order.json").read_text())
    (half / "order.json").write_text(json.dumps(order | {"owner": "trn_half"}))
    (workshop.state / "sources" / ".copy-1" / "source").mkdir(parents=True)
    (workshop.state / "environments" / "0123" / "bin").mkdir(parents=True)

    runtime = workshop.make_runtime()
    await runtime.start()
    assert [state.owner for state in await runtime.list_owned()] == ["trn_kept"]
    assert not half.exists()
    assert len(list((workshop.state / "sources").iterdir())) == 1
    assert list((workshop.state / "environments").iterdir()) == []
    await runtime.close()


async def test_processes_whose_folder_was_deleted_end_at_the_next_start(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    source = workshop.add_script("stays", FOR_EVER)
    for owner in ("trn_lost", "trn_kept"):
        await launch(runtime, owner, source)
    lost, kept = workshop.pid("trn_lost"), workshop.pid("trn_kept")
    shutil.rmtree(workshop.home("trn_lost"))
    after_restart = workshop.make_runtime()
    await after_restart.start()
    assert (is_running(lost), is_running(kept)) == (False, True)
    await after_restart.remove("trn_kept")
    await after_restart.close()


@pytest.mark.parametrize("file", ["order.json", "started.json"])
@pytest.mark.parametrize("damage", [b"", b"\xff{", b"[1]", b"{}", b'{"role": "cook", "groups": 1}'])
async def test_a_damaged_record_hides_no_other_workload_and_can_be_removed(
    workshop: Workshop, runtime: ProcessRuntime, file: str, damage: bytes
) -> None:
    source = workshop.add_script("stays", FOR_EVER)
    for owner in ("trn_damaged", "trn_whole"):
        await launch(runtime, owner, source)
    child, record = workshop.pid("trn_damaged"), workshop.home("trn_damaged") / file
    record.write_bytes(damage)

    after_restart = workshop.make_runtime()
    await after_restart.start()
    assert [state.owner for state in await after_restart.list_owned()] == ["trn_whole"]
    with pytest.raises(RuntimeUnavailable, match=rf"{file} is damaged .* trn_damaged is not known"):
        await after_restart.inspect("trn_damaged")
    assert is_running(child)
    for owner in ("trn_damaged", "trn_whole"):
        await after_restart.remove(owner)
    assert not is_running(child)
    assert_nothing_is_left(workshop)
    await after_restart.close()


@pytest.mark.parametrize("owner", ["", ".", "..", "a/b", "../a", "/etc", "a\0", ".gone-1"])
async def test_an_owner_is_never_a_path(runtime: ProcessRuntime, owner: str) -> None:
    with pytest.raises(Exception, match="cannot name a trainer or server"):
        await runtime.remove(owner)
