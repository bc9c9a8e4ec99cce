"""A trainer that wants too much of the machine gets what its spec allows, or is refused by name."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.spine.stage import add_trainer, can_limit, home, is_alive, owners, read_run
from tests.services.yard import Yard

MIB = 1024 * 1024
LOOK_SECONDS = 0.02


class Peak:
    """The largest size of a folder, and of a process beyond what it had at first, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._rss = self._process.memory_info().rss
        self.folder = self.growth = 0

    def look(self, folder: Path) -> None:
        sizes = (self._size(path) for path in folder.glob("*") if path.is_file())
        self.folder = max(self.folder, sum(sizes))
        self.growth = max(self.growth, self._process.memory_info().rss - self._rss)

    @staticmethod
    def _size(path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:  # it was renamed since it was listed
            return 0


@contextmanager
def measuring(folder: Path, pid: int) -> Iterator[Peak]:
    peak, ended = Peak(pid), threading.Event()

    def run() -> None:
        while not ended.wait(LOOK_SECONDS):
            peak.look(folder)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def test_a_log_of_100_mb_leaves_disk_and_memory_flat_and_keeps_its_end(yard: Yard, tmp_path: Path) -> None:
    go = tmp_path / "go"
    trainer = add_trainer(yard, env={"BEHAVIOUR": "floods", "HOLD_UNTIL": str(go)})
    started = yard.post(f"/admin/train/{trainer.name}", {"wait_seconds": 0}, status=202)
    location = started["location"]
    yard.wait_for(lambda: yard.get(location)["phase"] == "running", "the trainer's start")
    with measuring(home(yard, started["id"]), yard.router.pid) as peak:
        go.touch()
        yard.wait_for(lambda: yard.get(location)["phase"] == "succeeded", "the end of the flood")
    assert 2 * MIB < peak.folder <= 9 * MIB  # two files of 4 MiB, and small ones
    assert peak.growth < 24 * MIB
    tail = yard.get(location)["logs_tail"]
    assert tail.endswith("x\nregistered\n")
    assert len(tail) <= 16 * 1024


def test_gpus_are_refused_by_name_and_nothing_is_started(yard: Yard) -> None:
    trainer = add_trainer(yard, gpus="all")
    before = owners(yard)
    answer = yard.post(f"/admin/train/{trainer.name}", status=422)
    assert answer["error"]["code"] == "unsupported_setting"
    assert answer["error"]["message"].startswith("gpus cannot be honoured")
    assert answer["error"]["hint"]
    assert not owners(yard) - before


@pytest.mark.parametrize(
    ("resources", "behaviour", "code", "printed"),
    [
        ({"memory": "96m"}, "hogs-memory", "trainer_out_of_memory", "training, hogs-memory"),
        ({"pids": 10}, "forks", "trainer_failed", "Resource temporarily unavailable"),
    ],
)
def test_a_limit_is_kept_or_where_the_machine_cannot_refused_by_name(
    yard: Yard, resources: dict[str, object], behaviour: str, code: str, printed: str
) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": behaviour}, resources=resources)
    (setting,) = resources
    if not can_limit(**resources):
        refused = yard.post(f"/admin/train/{trainer.name}", status=422)
        assert refused["error"]["code"] == "unsupported_setting"
        assert f"resources.{setting} cannot be honoured" in refused["error"]["message"]
        return
    answer = yard.post(f"/admin/train/{trainer.name}", status=500)
    assert answer["error"]["code"] == code
    tail = answer["detail"]["logs_tail"]
    assert printed in tail
    assert "nobody stopped it" not in tail
    assert read_run(yard, answer["detail"]["run_id"])[0] == "FAILED"
    left = [int(pid) for pid in re.findall(r"child (\d+)", tail)]
    assert not any(map(is_alive, left))


def test_limits_that_are_not_required_do_not_keep_a_trainer_from_running(yard: Yard) -> None:
    trainer = add_trainer(yard, resources={"cpus": 1, "memory": "256m", "pids": 50, "required": False})
    assert yard.post(f"/admin/train/{trainer.name}")["version"] == 1


def test_what_a_trainer_leaves_running_ends_with_it(yard: Yard) -> None:
    trainer = add_trainer(yard, env={"BEHAVIOUR": "forks"})
    answer = yard.post(f"/admin/train/{trainer.name}")
    children = [int(pid) for pid in re.findall(r"child (\d+)", answer["logs_tail"])]
    assert len(children) > 100
    assert not any(map(is_alive, children))
