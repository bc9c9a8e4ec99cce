"""The one process between the router and a trainer or server: it outlives the router and tells how it ended.

Run by path with the bare interpreter (`-I -S`), so standard library only, and little of that: one of these
stays beside every trainer and server, and its start is part of every launch. The order comes over standard
input as `marshal` because `json` alone would cost 6 ms and a megabyte; what it writes is JSON.

Order of events, each safe to be killed after:
1. it leaves the router's session and becomes the parent that all descendants fall back to;
2. it locks `alive`, which it holds until it is gone: a lock cannot be mistaken for another process's, a pid
   can; its own end is therefore always noticed, even by a router that was not there;
3. it starts the child, which waits; writes `started.json` durably; only then lets the child go;
4. it copies the child's output into log files of bounded size;
5. the child has ended: whatever it left behind is killed, and `ended.json` is written durably.

SIGTERM is passed on to the child's process group; SIGUSR1 kills all of it at once.
"""

from __future__ import annotations

import ctypes
import fcntl
import marshal
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would cost as much as json
    from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
READ_BYTES = 256 * 1024
ROOM_FOR_END = 256  # bytes set aside for ended.json, so that a full disk cannot swallow an exit code

COPIED, NOTHING_NOW, ENDED = "copied", "nothing now", "ended"

ON_LINUX = sys.platform == "linux"


class Log:
    """`output.log`, moved to `output.log.1` when full: never more than two files of `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.file = create("output.log")

    def write(self, chunk: bytes) -> None:
        try:
            if self.size + len(chunk) > self.limit:
                self.rotate()
            self.size += os.write(self.file, chunk)
        except OSError:
            # A full disk loses output; a child that blocks on a pipe nobody reads would lose its work.
            return

    def rotate(self) -> None:
        fresh = create("output.log.new")
        os.rename("output.log", "output.log.1")
        os.rename("output.log.new", "output.log")
        os.close(self.file)
        self.file, self.size = fresh, 0


def create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def write_durably(path: str, text: str) -> None:
    """Into the file's reserve (`path.tmp`), which may exist already with room set aside."""
    file = os.open(path + ".tmp", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.write(file, text.ljust(ROOM_FOR_END).encode())
    os.fsync(file)
    os.close(file)
    os.rename(path + ".tmp", path)
    sync_directory()


def set_room_aside(path: str) -> None:
    file = create(path + ".tmp")
    os.write(file, b" " * ROOM_FOR_END)
    os.fsync(file)
    os.close(file)


def sync_directory() -> None:
    directory = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    os.fsync(directory)
    os.close(directory)


def control_process(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def start_child(order: dict[str, Any], output: int, go: int, refused: int) -> int:
    """Pid of a child that waits for a byte on `go`; what keeps it from starting it says on `refused`."""
    shim = os.getpid()
    child = os.fork()
    if child:
        os.setpgid(child, child)
        return child
    try:
        if ON_LINUX:
            control_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != shim or os.read(go, 1) != b"g":
            os._exit(127)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(order["directory"])
        # Python ignores some, the router others, and whoever started the router in the background a few more.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(order["command"][0], order["command"], order["env"])
    except OSError as error:
        os.write(refused, f"{order['command'][0]}: {error.strerror}".encode())
    except ValueError as error:  # a NUL, which no argument can hold
        os.write(refused, f"{order['command'][0]}: {error}".encode())
    os._exit(127)


def children() -> list[int]:
    """Pids of our direct children: under Linux that is also every orphan among the descendants."""
    shim = os.getpid()
    try:
        with open(f"/proc/{shim}/task/{shim}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without that list, or no Linux
        return [pid for pid in all_pids() if parent_of(pid) == shim]


def all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None  # it has ended


def kill_groups(groups: list[str]) -> None:
    """SIGKILL to every process in the control groups, in one step where the kernel has one."""
    for group in groups:
        try:
            with open(group + "/cgroup.kill", "w") as file:
                file.write("1")
        except OSError:
            continue
        return
    for group in groups:
        try:
            with open(group + "/cgroup.procs") as file:
                pids = [int(pid) for pid in file.read().split()]
        except OSError:
            continue
        for pid in pids:
            kill(pid, signal.SIGKILL)


def kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end_descendants(groups: list[str], child: int) -> None:
    """Kill and reap until nothing of the child's family is left."""
    if not ON_LINUX:  # no orphan comes back to us there: the process group is all we know
        kill(-child, signal.SIGKILL)
    while True:
        kill_groups(groups)
        for pid in children():
            kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def read_out_of_memory(groups: list[str]) -> str:
    """JSON: whether the kernel killed something in the group for memory; null where nothing counts that."""
    for group in groups:
        for counters in ("memory.events", "memory.oom_control"):
            try:
                with open(f"{group}/{counters}") as file:
                    lines = file.read().split("\n")
            except OSError:
                continue
            for line in lines:
                if line.startswith("oom_kill "):
                    return "true" if int(line.split()[1]) else "false"
    return "null"


def remove_groups(groups: list[str]) -> None:
    for group in groups:
        try:
            os.rmdir(group)
        except OSError:
            continue  # the router tries again when it forgets the workload


class Signals:
    """Signals as bytes on a pipe, so that one poll waits for them and for output."""

    def __init__(self) -> None:
        self.wakeup, write_end = os.pipe()
        for end in (self.wakeup, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def take(self) -> bytes:
        try:
            return os.read(self.wakeup, 4096)
        except BlockingIOError:
            return b""


def watch(child: int, output: int, signals: Signals, log: Log, groups: list[str]) -> int:
    """Copy output and pass signals on until the child has ended. Returns its wait status."""
    poll = select.poll()
    poll.register(signals.wakeup, select.POLLIN)
    poll.register(output, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == output and copy_output(output, log) == ENDED:
                poll.unregister(output)
        received = signals.take()
        if signal.SIGTERM in received:
            kill(-child, signal.SIGTERM)
        if signal.SIGUSR1 in received:
            kill_groups(groups)
            kill(-child, signal.SIGKILL)
        if signal.SIGCHLD in received:
            status = reap(child)
            if status is not None:
                return status


def reap(child: int) -> int | None:
    """Reap what has ended. Returns the child's wait status once it is among that."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == child:
            return status
        if pid == 0:
            return None


def copy_output(output: int, log: Log) -> str:
    """Whether there was output, is none now, or can be none any more."""
    try:
        chunk = os.read(output, READ_BYTES)
    except BlockingIOError:
        return NOTHING_NOW
    if not chunk:
        return ENDED
    log.write(chunk)
    return COPIED


def tell(answer: int, text: str) -> None:
    """To the router, which may have been killed since it asked: what was started goes on without it."""
    try:
        os.write(answer, text.encode())
    except BrokenPipeError:
        return


def run(order: dict[str, Any], answer: int) -> None:
    alive = os.open("alive", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(alive, fcntl.LOCK_EX)
    log = Log(order["log_bytes"])
    output, child_output = os.pipe()
    os.set_blocking(output, False)
    go, let_go = os.pipe()
    refusal, refused = os.pipe()
    child = start_child(order, child_output, go, refused)
    for descriptor in (child_output, go, refused):
        os.close(descriptor)
    signals = Signals()
    try:
        record_start(child, order["groups"])
    except OSError:
        end_descendants(order["groups"], child)
        raise
    os.write(let_go, b"g")
    os.close(let_go)
    reason = os.read(refusal, 1024)  # ends, empty, when the child's exec has closed the other end
    log.write(reason)
    tell(answer, f"refused {reason.decode()}" if reason else "started")
    os.close(refusal)
    os.close(answer)
    os.close(order["launch_lock"])
    status = watch(child, output, signals, log, order["groups"])
    end_descendants(order["groups"], child)
    while copy_output(output, log) == COPIED:
        continue
    record_end(status, order["groups"])
    remove_groups(order["groups"])


def record_start(child: int, groups: list[str]) -> None:
    for group in groups:
        with open(group + "/cgroup.procs", "w") as file:
            file.write(str(child))
    set_room_aside("ended.json")
    started_at = time.time()
    write_durably("started.json", f'{{"shim": {os.getpid()}, "child": {child}, "started_at": {started_at}}}')


def record_end(status: int, groups: list[str]) -> None:
    code = os.waitstatus_to_exitcode(status)
    code = 128 - code if code < 0 else code
    out_of_memory = read_out_of_memory(groups)
    text = f'{{"exit_code": {code}, "out_of_memory": {out_of_memory}, "finished_at": {time.time()}}}'
    write_durably("ended.json", text)


def main() -> None:
    order = marshal.loads(sys.stdin.buffer.read())
    os.chdir(order["home"])
    if os.fork():
        os._exit(0)
    os.setsid()
    if ON_LINUX:
        control_process(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(order["launch_lock"], False)
    nothing = os.open(os.devnull, os.O_RDWR)
    answer = os.dup(1)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    try:
        run(order, answer)
    except OSError as error:
        tell(answer, f"failed {error.errno} {error}")
        raise  # into shim.log


if __name__ == "__main__":
    main()
