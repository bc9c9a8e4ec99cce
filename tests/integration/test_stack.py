"""The processes that `make demo` leaves in the background, and `make down` must find again."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from scripts.background import Record, find_process, read_record, start_process, stop_process
from scripts.service_commands import ROOT
from scripts.stack import Ports, Stack
from scripts.stack_error import StackError
from tests.services.ports import find_free_port

# Two processes in one group, of which the leader says when both are there.
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "run" / "family.json"


@pytest.fixture
def family(record: Path, tmp_path: Path) -> Iterator[psutil.Process]:
    log = tmp_path / "family.log"
    with start_process(record, log, [sys.executable, "-c", FAMILY], {}, ROOT, {"PORT": 1}) as child:
        yield psutil.Process(child.pid)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def test_a_started_process_is_found_again_by_its_record(family: psutil.Process, record: Path) -> None:
    command = [sys.executable, "-c", FAMILY]
    assert read_record(record) == Record(family.pid, family.create_time(), command, {"PORT": 1})
    assert find_process(read_record(record)) == family


def read_child(directory: Path) -> psutil.Process:
    while not (directory / "family.log").read_text().endswith("\n"):
        os.sched_yield()
    return psutil.Process(int((directory / "family.log").read_text()))


def test_a_stopped_process_takes_its_whole_group_along(
    family: psutil.Process, record: Path, tmp_path: Path
) -> None:
    child = read_child(tmp_path)
    assert stop_process(record, grace_seconds=30)
    assert psutil.wait_procs([family, child], timeout=30)[1] == []
    assert not record.exists()


def test_a_stranger_that_got_the_pid_later_is_left_alone(record: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        ours = Record(stranger.pid, psutil.Process(stranger.pid).create_time(), [], {})
        record.parent.mkdir()
        record.write_text(json.dumps(asdict(replace(ours, started_at=ours.started_at - 60))))
        assert find_process(read_record(record)) is None
        assert not stop_process(record, grace_seconds=0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_a_killed_process_has_left_is_ended_too(
    family: psutil.Process, record: Path, tmp_path: Path
) -> None:
    child = read_child(tmp_path)
    family.kill()
    family.wait(30)
    assert find_process(read_record(record)) is None
    assert stop_process(record, grace_seconds=30)
    assert not child.is_running()
    assert not stop_process(record, grace_seconds=30)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": 1}'])
def test_a_damaged_record_keeps_nobody_from_stopping_what_it_told_of(
    family: psutil.Process, record: Path, tmp_path: Path, damage: str
) -> None:
    child = read_child(tmp_path)
    record.write_text(damage)
    assert read_record(record) is None
    assert stop_process(record, grace_seconds=30)
    assert psutil.wait_procs([family, child], timeout=30)[1] == []


def test_two_who_start_or_stop_a_stack_do_so_one_after_the_other(tmp_path: Path) -> None:
    stack = make_stack(tmp_path / "home")
    told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def take_turn() -> None:
        told.put("waits")
        with stack.turn():
            told.put("begins")

    with stack.turn():
        second = threading.Thread(target=take_turn)
        second.start()
        assert told.get(timeout=30) == "waits"
        while not (waiting := locks_waited_for(stack.home / "lock")):
            os.sched_yield()
        assert told.empty()
    second.join(30)
    assert (waiting, told.get(timeout=30)) == (1, "begins")


def locks_waited_for(path: Path) -> int:
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(inode in line and "->" in line for line in lines)


def make_stack(home: Path, **ports: int) -> Stack:
    free = {name: find_free_port() for name in vars(Ports())}
    return Stack(Ports(**(free | ports)), home)


def test_a_taken_port_is_named_with_the_setting_that_moves_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = make_stack(tmp_path / "home", proxy_public_port=port)
        message = rf"port {port}, which caddy needs, .*PROXY_PUBLIC_PORT="
        with stack.turn(), pytest.raises(StackError, match=message):
            list(stack.start())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["lock"]


def test_a_port_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_PORT", "eighty")
    with pytest.raises(StackError, match="ROUTER_PORT=eighty is not a port"):
        Ports.from_environment()


@pytest.mark.parametrize("home", ["/tmp/my state", "my state", f"/tmp/{'x' * 70}"])
def test_a_home_that_caddy_cannot_be_given_is_refused_before_anything_is_installed(home: str) -> None:
    environment = {"PATH": "/usr/bin:/bin", "SWITCHYARD_HOME": home}
    done = subprocess.run([ROOT / "scripts/demo"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: Caddy cannot .* no spaces.*SWITCHYARD_HOME=.*\n", done.stderr)


def test_settings_that_the_router_would_refuse_are_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WARM_SECONDS", "-1")
    stack = make_stack(tmp_path / "home")
    with stack.turn(), pytest.raises(StackError, match="WARM_SECONDS: Input should be greater"):
        list(stack.start())
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["lock"]


def test_settings_that_a_running_service_was_not_started_with_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack = make_stack(tmp_path / "home")
    monkeypatch.setenv("STORE_URL", "postgresql://router:s3cret@store/switchyard")
    monkeypatch.setenv("WARM_SECONDS", "60")
    router = stack.router()
    command = [sys.executable, "-c", FAMILY]
    record = stack.record("router")
    log = tmp_path / "router.log"
    with start_process(record, log, command, {}, ROOT, router.ports, router.settings) as child:
        try:
            assert "s3cret" not in record.read_text()
            assert stack.runs(router)
            monkeypatch.setenv("WARM_SECONDS", "61")
            monkeypatch.delenv("STORE_URL")
            with pytest.raises(StackError, match=r"runs already, with another STORE_URL, WARM_SECONDS\."):
                stack.runs(stack.router())
        finally:
            stop_process(record, grace_seconds=0)
            child.wait()


def test_what_a_service_writes_only_its_own_user_can_read(family: psutil.Process, record: Path) -> None:
    assert record.parent.stat().st_mode & 0o777 == 0o700
    assert Path(f"/proc/{family.pid}/status").read_text().count("Umask:\t0077") == 1
