"""Source folders: the 'images' of the process runtime, pinned by a hash of their content.

A folder can change between the moment its digest is recorded and the moment it is run, and a rollback runs
a digest whose folder has long changed. So whoever resolves a folder also keeps a copy of exactly what was
hashed, and only copies are ever run. None is ever deleted, since only the registry knows which may be rolled
back to.
"""

import compileall
import os
import py_compile
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.core.errors import ImageNotFound, InvalidSpec
from router.runtimes.base import Image, Role
from router.runtimes.process_folders import clearing, making

DESCRIPTION = "source.toml"
LOCK = "requirements.lock"
MOST_FILES = 10_000
MOST_BYTES = 128 * 2**20
CHUNK = 2**20
COPYING = ".copy-"  # prefix of snapshots that are being made
# Made by tools beside the source, never a part of it.
SKIPPED_FOLDERS = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
SKIPPED_ENDINGS = (".pyc", ".egg-info")
ENVIRONMENT_MARK = "pyvenv.cfg"


class Description(BaseModel):
    """What `source.toml` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lock: str | None = None  # None: the bare interpreter
    packages: tuple[str, ...] = ()  # folders put on PYTHONPATH
    train: tuple[str, ...] | None = Field(default=None, min_length=1)
    serve: tuple[str, ...] | None = Field(default=None, min_length=1)

    def command(self, role: Role) -> tuple[str, ...] | None:
        return self.train if role is Role.TRAINER else self.serve


@dataclass(frozen=True)
class Source:
    """A snapshot, ready to run."""

    digest: str
    folder: Path
    import_path: tuple[Path, ...]
    lock: Path | None
    description: Description


@dataclass(frozen=True)
class SourceFile:
    path: Path
    place: PurePosixPath  # where it stands in a snapshot


class Sources:
    """Blocking: call it in a thread. References are relative to `root`, and may not leave it."""

    def __init__(self, root: Path, snapshots: Path) -> None:
        self._root = root.resolve()
        self._snapshots = snapshots

    def clear_unfinished(self) -> None:
        """What killed routers left half copied."""
        with clearing(self._snapshots) as may_clear:
            for copy in self._snapshots.glob(f"{COPYING}*") if may_clear else ():
                shutil.rmtree(copy)

    def resolve(self, reference: str) -> Image:
        """Digest of what the folder holds now, of which a snapshot is kept.

        Raises ImageNotFound or InvalidSpec.
        """
        try:
            digest = hash_files(self._collect(reference))
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise ImageNotFound(f"Source {reference!r} cannot be read: {error}") from error
        if not self._place(digest).is_dir():
            digest = self._keep(reference)
        return Image(reference, digest)

    def open(self, image: Image) -> Source:
        """The content of this digest, whatever the folder holds now. Raises ImageNotFound."""
        place = self._place(image.digest)
        if not place.is_dir():
            now = self.resolve(image.reference)
            if now.digest != image.digest:
                raise ImageNotFound(
                    f"Source {image.reference!r} no longer holds {image.digest}: it is {now.digest} now. "
                    "Nothing was started.",
                    hint="Train or roll again to use what the folder holds now.",
                )
        description = read_description(place / "source" / DESCRIPTION, image.reference)
        return Source(
            digest=image.digest,
            folder=place / "source",
            import_path=tuple(place / "packages" / str(n) for n in range(len(description.packages))),
            lock=place / LOCK if description.lock is not None else None,
            description=description,
        )

    def _place(self, digest: str) -> Path:
        algorithm, _, number = digest.partition(":")
        if algorithm != "sha256" or len(number) != 64 or set(number) - set("0123456789abcdef"):
            raise ImageNotFound(f"{digest!r} is not the digest of a source folder.")
        return self._snapshots / number

    def _collect(self, reference: str) -> list[SourceFile]:
        folder = self._find_folder(reference, self._root / reference)
        description = read_description(folder / DESCRIPTION, reference)
        files = list(list_files(folder, PurePosixPath("source"), reference))
        for number, package in enumerate(description.packages):
            place = PurePosixPath("packages", str(number))
            files += list_files(self._find_folder(package, folder / package), place, reference)
        if description.lock is not None:
            files.append(SourceFile(self._find_lock(folder / description.lock), PurePosixPath(LOCK)))
        if len(files) > MOST_FILES or sum(file.path.stat().st_size for file in files) > MOST_BYTES:
            raise InvalidSpec(
                f"Source {reference!r} holds more than {MOST_FILES:,} files or {MOST_BYTES // 2**20} MiB.",
                hint="Keep data sets elsewhere: a copy of the folder is kept for each of its versions.",
            )
        return sorted(files, key=lambda file: file.place)

    def _find_folder(self, name: str, path: Path) -> Path:
        folder = self._stay_inside(name, path)
        if not folder.is_dir():
            raise ImageNotFound(
                f"there is no source folder {name!r} in {self._root}",
                hint="Give a folder relative to PROJECT_ROOT, such as model-images/sklearn-model-1.",
            )
        return folder

    def _find_lock(self, path: Path) -> Path:
        lock = self._stay_inside(path.name, path)
        if not lock.is_file():
            raise ImageNotFound(f"There is no lock {lock} as {DESCRIPTION} says.")
        return lock

    def _stay_inside(self, name: str, path: Path) -> Path:
        if "\0" in name:
            raise ImageNotFound(f"{name!r} is not the name of a source folder.")
        found = path.resolve()
        if not found.is_relative_to(self._root):
            raise ImageNotFound(f"Source {name!r} leads outside of {self._root}.")
        return found

    def _keep(self, reference: str) -> str:
        """Copy the folder beside the snapshots, under the digest of what was really copied."""
        with making(self._snapshots):
            return self._copy(reference)

    def _copy(self, reference: str) -> str:
        copy = Path(tempfile.mkdtemp(prefix=COPYING, dir=self._snapshots))
        try:
            digest = hash_files(self._collect(reference), copy_to=copy)
            compile_bytecode(copy)
            os.sync()  # a snapshot found after a power cut is taken as it is: it must be whole by its rename
            place = self._place(digest)
            try:
                copy.rename(place)
            except OSError:
                if not place.is_dir():  # otherwise somebody else was first, with the same content
                    raise
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return digest


def read_description(path: Path, reference: str) -> Description:
    try:
        return Description.model_validate(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise ImageNotFound(f"Source {reference!r} has no {DESCRIPTION}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{DESCRIPTION} of source {reference!r}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidSpec(f"{DESCRIPTION} of source {reference!r}: {key}: {first['msg']}") from error


def list_files(folder: Path, place: PurePosixPath, reference: str) -> Iterator[SourceFile]:
    for path, folders, names in os.walk(folder, onerror=fail):
        here = Path(path)
        folders[:] = [
            name
            for name in folders
            if name not in SKIPPED_FOLDERS
            and not name.endswith(SKIPPED_ENDINGS)
            and not (here / name / ENVIRONMENT_MARK).exists()
        ]
        for name in [*folders, *names]:
            if (here / name).is_symlink() or not ((here / name).is_dir() or (here / name).is_file()):
                raise InvalidSpec(
                    f"Source {reference!r} holds a link or a special file: {here / name}.",
                    hint=f"Put a copy there, or name the folder under `packages` in {DESCRIPTION}.",
                )
        for name in names:
            if not name.endswith(SKIPPED_ENDINGS):
                yield SourceFile(here / name, place / (here / name).relative_to(folder).as_posix())


def fail(error: OSError) -> NoReturn:
    raise error


def hash_files(files: list[SourceFile], copy_to: Path | None = None) -> str:
    """`sha256:...` over names, permission to execute, and content; `copy_to` gets what was hashed."""
    total = sha256()
    for file in files:
        executable = os.access(file.path, os.X_OK)
        content = hash_file(file.path, copy_to / file.place if copy_to else None, executable)
        total.update(f"{file.place}\0{int(executable)}\0{content}\0".encode())
    return f"sha256:{total.hexdigest()}"


def hash_file(path: Path, copy: Path | None, executable: bool) -> str:
    content = sha256()
    with path.open("rb") as original:
        if copy is None:
            while chunk := original.read(CHUNK):
                content.update(chunk)
            return content.hexdigest()
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("xb") as target:
            while chunk := original.read(CHUNK):
                content.update(chunk)
                target.write(chunk)
        copy.chmod(0o755 if executable else 0o644)
    return content.hexdigest()


def compile_bytecode(folder: Path) -> None:
    """So that no first start pays for it. A file that does not compile says so itself when it is run."""
    checked = py_compile.PycInvalidationMode.CHECKED_HASH  # a run may write new sources into its own copy
    compileall.compile_dir(folder, quiet=2, invalidation_mode=checked, stripdir=str(folder))
