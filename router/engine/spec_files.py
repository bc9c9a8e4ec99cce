"""The trainer specs on disk, as they are now: read again whenever a file has changed.

Files are looked at on each use, by `stat`, in a thread. A watcher would cost memory, hears nothing on network
and virtual-machine mounts, and always leaves a moment in which a person has saved a file and is still
answered from the old one.

A file that was changed a moment ago may be half-written, and one that vanished may be on its way back, as
editors save. Neither is believed before the folder or file has been left alone for `SETTLE_SECONDS`; until
then what was read last holds. `trainer` waits for that, once, so that a command never works on what its
caller has just replaced; `trainers` and `errors`, which only report, do not wait.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.to_thread

from router.core.clock import Clock
from router.core.errors import InvalidSpec, UnknownTrainer
from router.core.spec_text import Problem
from router.core.specs import InvalidSpecFile, TrainerSpec, parse_specs
from router.core.variables import printable

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
SETTLE_SECONDS = 0.2
WAIT_SECONDS = 0.3  # longer, since our clock and the file system's may differ a little
MAX_FILE_BYTES = 1024 * 1024

Signature = tuple[int, int, int, int]  # changes whenever the file does


@dataclass(frozen=True)
class Found:
    """A file as the folder shows it."""

    path: Path
    signature: Signature
    settling: bool


@dataclass(frozen=True)
class SpecFile:
    """One file as last believed. `specs` are its last good ones: `problems` tell of text that is newer."""

    signature: Signature
    specs: Mapping[str, TrainerSpec] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    files: Mapping[str, SpecFile] = field(default_factory=dict)  # by name, as messages show it
    folder_problem: Problem | None = None
    specs: Mapping[str, TrainerSpec] = field(default_factory=dict)
    conflicts: Mapping[str, Problem] = field(default_factory=dict)  # by trainer
    settling: bool = False  # something was changed too recently to be believed

    @property
    def problems(self) -> list[Problem]:
        found = [self.folder_problem] if self.folder_problem else []
        found += [problem for file in self.files.values() for problem in file.problems]
        return found + list(self.conflicts.values())


class SpecFiles:
    """`path` is a folder of specs or one file; `variables` are what `${VAR}` in them stands for."""

    def __init__(self, path: Path, variables: Mapping[str, str], clock: Clock) -> None:
        self._path = path
        self._variables = dict(variables)
        self._clock = clock
        self._snapshot = Snapshot()
        self._one_at_a_time = anyio.CapacityLimiter(1)

    async def trainer(self, name: str) -> TrainerSpec:
        """Raises UnknownTrainer; InvalidSpec if several files claim the name."""
        snapshot = await self._look()
        if snapshot.settling:
            await self._clock.sleep(WAIT_SECONDS)
            snapshot = await self._look()
        spec = snapshot.specs.get(name)
        if spec is not None:
            return spec
        if name in snapshot.conflicts:
            raise InvalidSpec(str(snapshot.conflicts[name]))
        raise UnknownTrainer(f"there is no trainer {printable(name)}", hint=_hint(snapshot, self._path))

    def warnings_of(self, spec: TrainerSpec) -> tuple[str, ...]:
        """Why `spec` is of an earlier text of its file, by the last look; none if it is of this one."""
        file = self._snapshot.files.get(spec.file)
        problems = () if file is None else file.problems
        return tuple(f"as its spec was before this: {problem}" for problem in problems)

    async def trainers(self) -> dict[str, TrainerSpec]:
        return dict((await self._look()).specs)

    async def errors(self) -> list[Problem]:
        """What is wrong with the files now; a file's last good trainers go on working."""
        return (await self._look()).problems

    async def _look(self) -> Snapshot:
        def look() -> Snapshot:
            self._snapshot = look_at(self._path, self._snapshot, self._variables, self._clock.now())
            return self._snapshot

        return await anyio.to_thread.run_sync(look, limiter=self._one_at_a_time)


def look_at(path: Path, last: Snapshot, variables: Mapping[str, str], now: float) -> Snapshot:
    """The next snapshot, from the last one and the disk. `now`: epoch seconds."""
    try:
        found = _list_files(path, now)
        container = path if path.is_dir() else path.parent
        vanishing = _is_settling(container.stat(), now)
    except OSError as error:
        problem = Problem(str(path), None, "", f"SPECS_PATH cannot be read: {error.strerror or error}")
        return replace(last, folder_problem=problem, settling=False)
    files: dict[str, SpecFile] = {}
    settling = False
    for name in sorted({*found, *last.files}):
        file, known = found.get(name), last.files.get(name)
        if file is None:
            believed, moving = (known if vanishing else None), vanishing
        else:
            believed, moving = _read_if_changed(file, name, known, variables)
        settling |= moving
        if believed is not None:
            files[name] = believed
    specs, conflicts = merge(files, last.specs)
    return Snapshot(files, None, specs, conflicts, settling)


def merge(
    files: Mapping[str, SpecFile], last: Mapping[str, TrainerSpec]
) -> tuple[dict[str, TrainerSpec], dict[str, Problem]]:
    """The trainers of all files. A name claimed twice stays with the file that had it, or is no one's."""
    claims: defaultdict[str, list[TrainerSpec]] = defaultdict(list)
    for file in files.values():
        for name, spec in file.specs.items():
            claims[name].append(spec)
    specs: dict[str, TrainerSpec] = {}
    conflicts: dict[str, Problem] = {}
    for name, claimants in claims.items():
        owner = last[name].file if name in last else None
        kept = claimants if len(claimants) == 1 else [spec for spec in claimants if spec.file == owner]
        if kept:
            specs[name] = kept[0]
        if len(claimants) > 1:
            conflicts[name] = _describe_conflict(claimants, kept)
    return specs, conflicts


def _describe_conflict(claimants: list[TrainerSpec], kept: list[TrainerSpec]) -> Problem:
    refused = next(spec for spec in reversed(claimants) if spec not in kept)
    places = " and in ".join(spec.where for spec in claimants)
    outcome = f"the one in {kept[0].file} stays in force" if kept else "none of them is used"
    return Problem(refused.file, refused.line, refused.name, f"this trainer stands in {places}; {outcome}")


def _list_files(path: Path, now: float) -> dict[str, Found]:
    """By the name that messages show. Hidden files are editors' and file systems' own."""
    if not path.is_dir():
        return {path.name: _find(path, path.stat(), now)}
    found = {}
    for entry in os.scandir(path):
        if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue  # vanished since it was listed
        if stat.S_ISREG(status.st_mode):
            found[f"{path.name}/{entry.name}"] = _find(Path(entry.path), status, now)
    return found


def _find(path: Path, status: os.stat_result, now: float) -> Found:
    return Found(path, _sign(status), _is_settling(status, now))


def _sign(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_settling(status: os.stat_result, now: float) -> bool:
    return abs(now - status.st_mtime) < SETTLE_SECONDS


def _read_if_changed(
    file: Found, name: str, known: SpecFile | None, variables: Mapping[str, str]
) -> tuple[SpecFile | None, bool]:
    """What is believed of this file now, and whether it is still being changed."""
    if known is not None and known.signature == file.signature:
        return known, False
    if file.settling:
        return known, True
    last_good = known.specs if known is not None else {}
    try:
        with file.path.open("rb") as handle:
            content = handle.read(MAX_FILE_BYTES + 1)
            if _sign(os.fstat(handle.fileno())) != file.signature:
                return known, True
        specs = parse_specs(_decode(content, name), name, variables)
    except FileNotFoundError:
        return known, True
    except InvalidSpecFile as error:
        return SpecFile(file.signature, last_good, error.problems), False
    except OSError as error:
        problem = Problem(name, None, "", f"cannot be read: {error.strerror or error}")
        return SpecFile(file.signature, last_good, (problem,)), False
    return SpecFile(file.signature, specs), False


def _decode(content: bytes, name: str) -> str:
    if len(content) > MAX_FILE_BYTES:
        raise InvalidSpecFile([Problem(name, None, "", "is larger than 1 MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidSpecFile([Problem(name, line, "", "is not UTF-8 text")]) from error


def _hint(snapshot: Snapshot, path: Path) -> str:
    known = ", ".join(sorted(snapshot.specs))
    hint = f"known trainers: {known}" if known else f"no trainer was found in {path}"
    problems = snapshot.problems
    return f"{hint}; the specs have errors: {problems[0]}" if problems else hint
