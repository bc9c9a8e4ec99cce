"""Small parts of the process runtime that need no process."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.runtimes.process_cgroups import read_memory
from router.runtimes.process_homes import skip_cut_character
from router.runtimes.process_removal import delete_folder
from router.runtimes.process_shim import children, read_out_of_memory

NOBODY = 65534


@pytest.mark.parametrize("text", ["", "plain", "grüße", "👋 hello", "𝔘"])
def test_a_tail_never_begins_in_the_middle_of_a_letter(text: str) -> None:
    whole = text.encode()
    for start in range(len(whole) + 1):
        assert text.endswith(skip_cut_character(whole[start:]).decode())


def test_bytes_that_are_no_letters_stay() -> None:
    assert skip_cut_character(b"\x80" * 9) == b"\x80" * 9


def test_a_kernel_without_a_list_of_children_has_them_found_among_all_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_open = open
    with subprocess.Popen(["sleep", "1000"]) as child:
        listed = children()
        assert child.pid in listed
        monkeypatch.setattr("builtins.open", lambda path: real_open(path.replace("/children", "/none")))
        assert sorted(children()) == sorted(listed)
        monkeypatch.undo()
        child.kill()


@contextmanager
def as_ordinary_user(folder: Path) -> Iterator[None]:
    """Who, other than root, may not do everything. The folder becomes theirs."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.lchown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_folders_that_nobody_may_change_are_deleted_and_links_are_not_followed() -> None:
    with tempfile.TemporaryDirectory() as directory:
        inner = Path(directory) / "removed" / "a" / "b"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        elsewhere = Path(directory) / "elsewhere"
        elsewhere.mkdir(mode=0o500)
        (inner / "link").symlink_to(elsewhere)
        inner.chmod(0o500)
        inner.parent.chmod(0)
        with as_ordinary_user(Path(directory)):
            delete_folder(Path(directory) / "removed")
        assert not (Path(directory) / "removed").exists()
        assert elsewhere.stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("memory.events", "low 0\noom 1\noom_kill 1\n", "true"),
        ("memory.events", "low 0\noom 0\noom_kill 0\n", "false"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "true"),
        ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\n", "null"),
        ("pids.events", "max 3\n", "null"),
    ],
)
def test_a_kill_for_memory_is_read_in_either_version(tmp_path: Path, file: str, text: str, told: str) -> None:
    (tmp_path / file).write_text(text)
    assert read_out_of_memory([str(tmp_path / "gone"), str(tmp_path)]) == told


@pytest.mark.parametrize("file", ["memory.current", "memory.usage_in_bytes"])
def test_used_memory_is_read_in_either_version(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("4096\n")
    assert read_memory([tmp_path / "gone", tmp_path]) == 4096
    assert read_memory([tmp_path / "gone"]) is None
