"""Limits hold where the machine has control groups; where it has not, they are refused by name."""

from pathlib import Path

import pytest

from router.core.errors import UnsupportedSetting
from router.core.specs import Resources
from router.runtimes.process import ProcessRuntime
from router.runtimes.process_cgroups import Cgroups
from tests.contract.runtime_stages import Listener
from tests.integration.runtimes.workshop import FOREVER, Workshop, launch, run_to_end

pytestmark = pytest.mark.anyio

EATS_MEMORY = "kept = []\nwhile True: kept.append(bytearray(b'x' * 2**20))\n"
CHILD_EATS_MEMORY = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {EATS_MEMORY!r}])\n"
FORKS = """
import os, signal, sys
children = 0
try:
    while children < 500:
        if os.fork() == 0:
            signal.pause()
        children += 1
except BlockingIOError:
    pass
sys.exit(min(children, 255))
"""
MIB = 2**20
CPU_FILES = {"cpu.max", "cpu.cfs_quota_us"}


def find_unsupported(resources: Resources) -> UnsupportedSetting | None:
    try:
        Cgroups("switchyard-test").refuse_unsupported(resources)
    except UnsupportedSetting as error:
        return error
    return None


async def test_a_trainer_that_exceeds_its_memory_ends_as_out_of_memory(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    limited = Resources(memory=64 * MIB)
    workshop.add_source("greedy", EATS_MEMORY)
    if refused := find_unsupported(limited):
        assert "resources.memory" in refused.message
        return

    state = await run_to_end(runtime, "trn_1", "greedy", resources=limited)

    assert (state.exit_code, state.out_of_memory) == (128 + 9, True)


async def test_out_of_memory_of_a_trainers_child_is_known(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    limited = Resources(memory=64 * MIB)
    workshop.add_source("greedy", CHILD_EATS_MEMORY)
    if refused := find_unsupported(limited):
        assert "resources.memory" in refused.message
        return

    state = await run_to_end(runtime, "trn_1", "greedy", resources=limited)

    assert state.out_of_memory is True


async def test_a_trainer_within_its_memory_did_not_run_out_of_it(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    limited = Resources(memory=256 * MIB)
    workshop.add_source("modest", "")
    if refused := find_unsupported(limited):
        assert "resources.memory" in refused.message
        return

    state = await run_to_end(runtime, "trn_1", "modest", resources=limited)

    assert (state.exit_code, state.out_of_memory) == (0, False)


async def test_without_a_limit_nobody_counts_what_the_kernel_kills(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    workshop.add_source("killed", "import os\nos.kill(os.getpid(), 9)")

    state = await run_to_end(runtime, "trn_1", "killed")

    assert state.exit_code == 128 + 9
    assert state.out_of_memory is not True


async def test_a_fork_bomb_ends_at_its_limit_and_leaves_nothing(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    limited = Resources(pids=20)
    workshop.add_source("bomb", FORKS)
    if refused := find_unsupported(limited):
        assert "resources.pids" in refused.message
        return

    state = await run_to_end(runtime, "trn_1", "bomb", resources=limited)

    assert state.exit_code == 19  # children, beside itself
    assert [path for path in workshop.groups("trn_1") if path.exists()] == []


async def test_a_share_of_the_processors_is_set(workshop: Workshop, runtime: ProcessRuntime) -> None:
    limited = Resources(cpus=0.5)
    if refused := find_unsupported(limited):
        assert "resources.cpus" in refused.message
        return
    groups = Cgroups("switchyard-test")

    made = groups.create("srv_share", limited)
    texts = [path.read_text() for group in made for path in group.glob("cpu.*") if path.name in CPU_FILES]
    groups.remove(made)

    assert texts in (["50000 100000\n"], ["50000\n"])


async def test_no_control_group_is_left_behind(workshop: Workshop, runtime: ProcessRuntime) -> None:
    limited = Resources(memory=256 * MIB, pids=50, cpus=1, required=False)
    workshop.add_source("server", FOREVER)
    listener = Listener(runtime)
    await launch(runtime, "srv_1", "server", resources=limited)
    await launch(runtime, "srv_2", "server", resources=limited)
    groups = [*workshop.groups("srv_1"), *workshop.groups("srv_2")]
    assert all(path.exists() for path in groups)

    await runtime.stop("srv_1", 30)
    workshop.kill_shim("srv_2")
    await listener.wait_for("srv_2")
    await runtime.remove("srv_1")
    await runtime.remove("srv_2")

    assert [path for path in groups if path.exists()] == []


@pytest.mark.parametrize("setting", ["memory", "pids", "cpus"])
def test_a_limit_that_the_machine_cannot_set_is_refused_by_name(setting: str, tmp_path: Path) -> None:
    machine = Cgroups("switchyard-test", mount=tmp_path / "none", own_groups=tmp_path / "none")
    resources = Resources.model_validate({setting: 64 * MIB if setting == "memory" else 4})

    with pytest.raises(UnsupportedSetting, match=f"resources.{setting} cannot be honoured"):
        machine.refuse_unsupported(resources)
    with pytest.raises(UnsupportedSetting, match=f"resources.{setting}"):
        machine.create("trn_1", resources)


def test_a_limit_that_is_not_required_is_left_out_where_it_cannot_be_set(tmp_path: Path) -> None:
    machine = Cgroups("switchyard-test", mount=tmp_path / "none", own_groups=tmp_path / "none")
    resources = Resources(memory=64 * MIB, cpus=1, pids=5, required=False)

    machine.refuse_unsupported(resources)

    assert machine.create("trn_1", resources) == []


def test_under_version_2_limits_are_set_in_one_group_below_our_own(tmp_path: Path) -> None:
    """On a folder that stands for the kernel's: only names and texts are seen, not what they do."""
    own = tmp_path / "user.slice"
    own.mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "own").write_text("0::/user.slice\n")
    machine = Cgroups("switchyard-test", mount=tmp_path, own_groups=tmp_path / "own")

    groups = machine.create("trn_1", Resources(memory=64 * MIB, cpus=1.5, pids=7))

    assert groups == [own / "switchyard-test-trn_1"]
    written = {path.name: path.read_text() for path in groups[0].iterdir()}
    assert written == {"memory.max": str(64 * MIB), "cpu.max": "150000 100000", "pids.max": "7"}


def test_under_version_2_a_group_that_holds_processes_is_passed_over_for_the_one_above(
    tmp_path: Path,
) -> None:
    own = tmp_path / "app.slice" / "router.scope"
    own.mkdir(parents=True)
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    (own.parent / "cgroup.subtree_control").write_text("memory\n")
    (tmp_path / "own").write_text("0::/app.slice/router.scope\n")
    machine = Cgroups("switchyard-test", mount=tmp_path, own_groups=tmp_path / "own")

    assert machine.create("trn_1", Resources(memory=64 * MIB)) == [own.parent / "switchyard-test-trn_1"]
