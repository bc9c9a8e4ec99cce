"""Source folders: what the process runtime runs instead of images, pinned by content.

A folder may change between the moment it is chosen and the moment it is run, or long before a rollback runs
it again. So choosing one copies it, with the packages that it uses, into a snapshot named by its digest, and
only snapshots are ever run.
"""

import os
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.core.errors import ImageNotFound, LaunchFailed
from router.runtimes.base import Image

SOURCE_FILE = "source.toml"
SKIPPED = frozenset({"__pycache__", ".git", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
MAX_SNAPSHOT_BYTES = 256 * 1024 * 1024


class SourceFile(BaseModel):
    """`source.toml`: how to run the folder. Commands run in the folder, `python` is the environment's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    lock: str | None = None  # requirements with hashes; none: the bare interpreter
    packages: list[str] = Field(default_factory=list)  # folders put on the import path
    train: list[str] = Field(default_factory=list)
    serve: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A snapshot, ready to run."""

    digest: str
    folder: Path
    lock: Path | None
    import_path: tuple[Path, ...]
    train: tuple[str, ...]
    serve: tuple[str, ...]


class Sources:
    """Blocking: call it in a thread."""

    def __init__(self, root: Path, snapshots: Path) -> None:
        self._root = root.resolve()
        self._snapshots = snapshots

    def resolve(self, reference: str) -> Image:
        """Pin a folder, relative to the project's root, by its content. Raises ImageNotFound."""
        folder = self._find_folder(reference)
        described = read_source_file(folder, reference)
        parts = [("source", folder)]
        for number, package in enumerate(described.packages):
            parts.append((f"packages/{number}", self._inside(folder / package, reference)))
        files = {
            f"{part}/{relative}": path for part, base in parts for relative, path in sorted(list_files(base))
        }
        self._snapshots.mkdir(parents=True, exist_ok=True)
        copied = Path(tempfile.mkdtemp(prefix=".copy-", dir=self._snapshots))
        try:
            digest = copy_files(files, copied, reference)
            self._keep(copied, digest)
        finally:
            shutil.rmtree(copied, ignore_errors=True)
        return Image(reference, digest)

    def _keep(self, copied: Path, digest: str) -> None:
        target = self._snapshot(digest)
        if target.exists():
            return
        try:
            copied.rename(target)
        except OSError:
            if not target.exists():  # another resolve was first, with the same content
                raise

    def open(self, image: Image) -> Source:
        """The snapshot with the image's digest, whatever the folder is now. Raises ImageNotFound."""
        if not self._snapshot(image.digest).exists() and self.resolve(image.reference).digest != image.digest:
            raise ImageNotFound(
                f"there is no copy of {image.reference} with the digest {image.digest},"
                " and the folder has changed since",
                hint="roll out a version again to use the folder as it is now",
            )
        base = self._snapshot(image.digest)
        folder = base / "source"
        described = read_source_file(folder, image.reference)
        packages = tuple(base / "packages" / str(number) for number in range(len(described.packages)))
        return Source(
            digest=image.digest,
            folder=folder,
            lock=folder / described.lock if described.lock else None,
            import_path=packages,
            train=tuple(described.train),
            serve=tuple(described.serve),
        )

    def _snapshot(self, digest: str) -> Path:
        return self._snapshots / digest.removeprefix("sha256:")

    def _find_folder(self, reference: str) -> Path:
        if not reference or "\0" in reference:
            raise ImageNotFound(f"{reference!r} is not a source folder")
        folder = self._inside(self._root / reference, reference)
        if not (folder / SOURCE_FILE).is_file():
            raise ImageNotFound(
                f"there is no source folder {reference!r} (a folder with a {SOURCE_FILE}) in {self._root}",
                hint="give a folder relative to PROJECT_ROOT, such as model-images/sklearn-model-1",
            )
        return folder

    def _inside(self, path: Path, reference: str) -> Path:
        resolved = path.resolve()
        if not resolved.is_relative_to(self._root):
            raise ImageNotFound(f"the source folder {reference!r} lies outside of PROJECT_ROOT")
        return resolved


def read_source_file(folder: Path, reference: str) -> SourceFile:
    try:
        described = tomllib.loads((folder / SOURCE_FILE).read_text())
        return SourceFile.model_validate(described)
    except FileNotFoundError as error:
        raise ImageNotFound(f"{reference} has no {SOURCE_FILE}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise ImageNotFound(f"{reference}/{SOURCE_FILE} cannot be read: {error}") from error


def list_files(base: Path) -> list[tuple[str, Path]]:
    """Every regular file below, by its path relative to the base; links are not followed."""
    found = []
    for directory, names, files in os.walk(base):
        names[:] = [name for name in names if name not in SKIPPED and not name.endswith(".egg-info")]
        for name in files:
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink():
                found.append((path.relative_to(base).as_posix(), path))
    return found


def copy_files(files: dict[str, Path], target: Path, reference: str) -> str:
    """Copy, and return the digest of what was copied: nothing can change in between."""
    digest, size = sha256(), 0
    for relative, path in files.items():
        content = path.read_bytes()
        size += len(content)
        if size > MAX_SNAPSHOT_BYTES:
            raise LaunchFailed(
                f"the source folder {reference} is larger than {MAX_SNAPSHOT_BYTES // 2**20} MiB",
                hint="keep data out of it and give its path in the trainer's env",
            )
        digest.update(f"{relative}\0{len(content)}\0".encode())
        digest.update(content)
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        copy.chmod(path.stat().st_mode & 0o777)
    return f"sha256:{digest.hexdigest()}"
