"""The slot directory under kills and full disks: the old state or the new one, and never a mixture."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from router.core.errors import InvalidRequest, ProxyUnavailable, StorageFull, UnknownEndpoint
from router.core.traffic import Traffic
from router.proxies.slot_directory import KEPT, SlotDirectories
from router.proxies.slot_lock import SlotLock
from scripts.service_commands import ROOT
from tests.integration.proxies.slot_writer import NEW, OLD, make_slots
from tests.services.proxied import make_upstream
from tests.services.small_disk import may_mount, mount_small_disk


def files_of(root: Path) -> dict[str, str]:
    current = root / "default" / "current"
    return {name: (current / name).read_text() for name in ("active", "candidate", "cut")}


def test_a_writer_killed_at_any_step_leaves_the_old_traffic_or_the_new(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.integration.proxies.slot_writer", str(tmp_path)]
    last = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    outcomes = []
    for step in range(1, last + 1):
        root = tmp_path / str(step)
        slots = SlotDirectories(root, "127.0.0.1:9001")
        found = slots.read("default")
        assert found in (OLD, NEW)
        assert found.active is not None
        address = found.active.address
        assert files_of(root) == {"active": address, "candidate": address, "cut": "0000"}
        outcomes.append(found == NEW)
        slots.write("default", OLD)  # whatever was left does not disturb the next writer
        assert slots.read("default") == OLD
    assert last > 20
    assert outcomes[0] is False
    assert outcomes[-1] is True
    assert outcomes == sorted(outcomes)  # once it holds, it holds


def names_in(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "default").iterdir())


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "symlink", "replace"])
def test_no_room_at_any_call_leaves_the_old_traffic_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    slots = make_slots(tmp_path)
    before, real = names_in(tmp_path), getattr(os, call)
    for good_calls in range(10):
        left = good_calls

        def fail_later(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail_later)
            try:
                slots.write("default", NEW)
            except StorageFull:
                refused = True
            else:
                refused = False
        if not refused:  # there were fewer calls than that
            break
        assert slots.read("default") == OLD
        assert names_in(tmp_path) == before
    slots.write("default", NEW)
    assert slots.read("default") == NEW


if may_mount():

    def test_a_disk_that_is_really_full_leaves_the_old_traffic(tmp_path: Path) -> None:
        with mount_small_disk(tmp_path / "disk", 128 * 1024) as disk:
            slots = make_slots(disk.directory)
            disk.fill()
            before = names_in(disk.directory)
            with pytest.raises(StorageFull):
                slots.write("default", NEW)
            assert slots.read("default") == OLD
            assert names_in(disk.directory) == before
            disk.free()
            slots.write("default", NEW)
            assert slots.read("default") == NEW


def test_slots_that_lost_their_current_go_back_to_their_last_whole_state(tmp_path: Path) -> None:
    slots = make_slots(tmp_path)
    slots.write("default", NEW)
    (tmp_path / "default" / "current").unlink()
    (tmp_path / "default" / "99").mkdir()  # written by half
    (tmp_path / "default" / "99" / "traffic.json").touch()
    with pytest.raises(UnknownEndpoint):
        slots.read("default")
    assert slots.create(["default"]) == []
    assert slots.read("default") == NEW
    slots.write("default", OLD)
    assert slots.read("default") == OLD


def test_slots_whose_current_leads_nowhere_go_back_to_their_last_whole_state(tmp_path: Path) -> None:
    slots = make_slots(tmp_path)
    slots.write("default", NEW)
    shutil.rmtree((tmp_path / "default" / "current").resolve())
    with pytest.raises(UnknownEndpoint):
        slots.mend("default")
    assert slots.create(["default"]) == []
    assert slots.read("default") == OLD


@pytest.mark.parametrize("file", ["active", "candidate", "cut"])
@pytest.mark.parametrize("text", [None, "", "127.0.0.1:9"])
def test_what_caddy_reads_is_mended_from_what_it_should_say(
    tmp_path: Path, file: str, text: str | None
) -> None:
    slots = make_slots(tmp_path)
    slots.write("default", NEW)
    assert not slots.mend("default")
    current = tmp_path / "default" / "current"
    whole = files_of(tmp_path)
    (current / file).unlink()
    if text is not None:
        (current / file).write_text(text)
    assert slots.mend("default")
    assert files_of(tmp_path) == whole
    assert not slots.mend("default")


def test_an_endpoint_that_was_removed_does_not_come_back_with_its_name(tmp_path: Path) -> None:
    slots = make_slots(tmp_path)
    slots.remove(["default"])
    assert list(tmp_path.iterdir()) == []
    assert slots.create(["default"]) == ["default"]
    assert slots.read("default") == Traffic()


def test_damaged_slots_say_how_to_go_back(tmp_path: Path) -> None:
    slots = make_slots(tmp_path)
    (tmp_path / "default" / "current" / "traffic.json").write_text("")
    with pytest.raises(ProxyUnavailable, match="is damaged") as caught:
        slots.read("default")
    assert "ln -sfn NUMBER current" in str(caught.value.hint)


def test_old_directories_are_pruned_and_the_current_one_never(tmp_path: Path) -> None:
    slots = make_slots(tmp_path)
    for version in range(2, 40):
        slots.write("default", Traffic(active=make_upstream(f"127.0.0.1:{version}")))
    numbered = [path for path in (tmp_path / "default").iterdir() if path.name.isdecimal()]
    assert len(numbered) == KEPT
    assert slots.read("default") == Traffic(active=make_upstream("127.0.0.1:39"))


@pytest.mark.parametrize("name", ["../default", "a/b", "", ".", "..", "a\nb", "a\0b", "x" * 64])
def test_a_name_that_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    slots = make_slots(tmp_path)
    with pytest.raises(InvalidRequest):
        slots.write(name, NEW)
    with pytest.raises(InvalidRequest):
        slots.create([name])


def test_the_lock_is_for_one_router_and_goes_with_it(tmp_path: Path) -> None:
    first, second = SlotLock(tmp_path), SlotLock(tmp_path)
    assert first.try_acquire()
    assert not second.try_acquire()
    # A child of the holder does not inherit the lock.
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first.release()
    try:
        assert second.try_acquire()
    finally:
        child.communicate(b"\n")


HOLD_LOCK = """
import sys
from pathlib import Path
from router.proxies.slot_lock import SlotLock
lock = SlotLock(Path(sys.argv[1]))
print(lock.try_acquire(), flush=True)
input()
"""


def test_a_killed_router_leaves_the_lock_to_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(tmp_path)]
    lock = SlotLock(tmp_path)
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert not lock.try_acquire()
        holder.kill()
    assert lock.try_acquire()
    lock.release()
