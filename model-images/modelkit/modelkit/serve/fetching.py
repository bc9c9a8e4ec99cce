"""From a model's URI to files on this disk whose content is known to be right.

MLflow is asked first, since an alias may have moved. If it cannot be reached, what the cache has is served.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from modelkit.manifest import DIGESTS_FILE, Digests, FileDigest
from modelkit.serve.artifacts import ArtifactService, Refused, Source, Unreachable, keep_trying
from modelkit.serve.cache import Cache, Corrupt, Remembered

_TRIES = 3  # of a file whose content is wrong

Given = TypeVar("Given")
Got = TypeVar("Got")

log = logging.getLogger("modelkit.serve")


class ModelLoadError(Exception):
    """The model cannot be fetched or opened."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk. `read` checks a file's digest first, `assemble` makes MLflow's folder of all."""

    source: Source
    digests: Digests
    read: Callable[[str], bytes]
    assemble: Callable[[Path], Path]


def fetch_model(uri: str, service: ArtifactService, cache: Cache, own: Path) -> ModelFiles:
    """Raises ModelLoadError, and NotDirect where only MLflow's client can help.

    `own` is a folder of this server alone, for what another server keeps spoiling in `cache`.
    """
    known = cache.recall(uri)
    try:
        source = service.find(uri) if known is not None else keep_trying(lambda: service.find(uri))
        # Read anew though remembered: another server may have written what the cache remembers.
        digests = keep_trying(lambda: _read_digests(service, source, cache))
        known = Remembered(source.folder, digests, source.name, source.version, source.run_id)
        for path, digest in known.digests.files.items():
            if not cache.has(digest):
                keep_trying(partial(_fetch_file, service, cache, source.folder, path, digest))
        cache.remember(uri, known)
        cache.prune()
    except Refused as error:
        raise ModelLoadError(f"{uri} cannot be loaded: {error}") from error
    except Unreachable as error:
        if known is None or not _is_whole(known.digests, cache):
            raise ModelLoadError(f"{uri} cannot be loaded: {error}") from error
        log.warning("%s; serving %s as it was fetched before", error, uri)
    found = Source(known.folder, known.name, known.version, known.run_id)
    files = known.digests.files

    def use(path: str, work: Callable[..., Got]) -> Got:
        digest = files[path]

        def fetch(cache: Cache) -> None:
            keep_trying(lambda: _fetch_file(service, cache, found.folder, path, digest))

        return _use(cache, own, fetch, partial(work, digest=digest))

    def read(path: str) -> bytes:
        return use(path, Cache.read)

    def assemble(folder: Path) -> Path:
        for path in files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            use(path, partial(Cache.copy, target=target))
        return folder

    return ModelFiles(found, known.digests, _translated(uri, read), _translated(uri, assemble))


def _use(cache: Cache, own: Path, fetch: Callable[[Cache], None], work: Callable[[Cache], Got]) -> Got:
    try:
        return work(cache)
    except (Corrupt, OSError) as error:
        log.warning("%s: fetched again", error)
    try:
        fetch(cache)
        return work(cache)
    except (Corrupt, OSError) as error:
        log.warning("%s: fetched without the cache", error)
    cache = Cache(own)
    fetch(cache)
    return work(cache)


def find_folder(uri: str) -> Path:
    """Where it is if `uri` names a folder of this disk."""
    return Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri)


def open_local(uri: str) -> ModelFiles | None:
    """The model in a folder of this disk; None if `uri` names no folder."""
    folder = find_folder(uri)
    if not (folder / "MLmodel").is_file():
        return None
    try:
        digests = msgspec.json.decode((folder / DIGESTS_FILE).read_bytes(), type=Digests)
    except FileNotFoundError:
        log.warning("%s has no digests: its files are not checked", folder)
        digests = Digests({}, "its trainer left no compiled form")

    def read(path: str) -> bytes:
        content = (folder / path).read_bytes()
        expected = digests.files.get(path)
        if expected is not None and _digest(content) != expected:
            raise Corrupt(f"{folder / path} is not what its digest says")
        return content

    def assemble(_: Path) -> Path:
        for path in digests.files:
            read(path)
        return folder

    return ModelFiles(Source(str(folder)), digests, _translated(uri, read), _translated(uri, assemble))


def _digest(content: bytes) -> FileDigest:
    return FileDigest(hashlib.sha256(content).hexdigest(), len(content))


def _read_digests(service: ArtifactService, source: Source, cache: Cache) -> Digests:
    pieces: list[bytes] = []
    try:
        service.fetch(source.folder, DIGESTS_FILE, pieces.append)
        return _check_paths(msgspec.json.decode(b"".join(pieces), type=Digests))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Refused(f"{DIGESTS_FILE} is corrupt: {error}") from error
    except KeyError:
        listed = service.list_files(source.folder)
    except Unreachable:  # MLflow says so, too, of a file that its object store does not have
        listed = service.list_files(source.folder)
        if DIGESTS_FILE in listed:
            raise
    log.warning("the model has no digests: its files are checked by their size alone")
    files = {}
    for path, size in listed.items():
        files[path] = cache.put(partial(service.fetch, source.folder, path))
        if files[path].size != size:
            raise Unreachable(f"{path} has {files[path].size} bytes, MLflow lists {size}")
    return _check_paths(Digests(files, "its trainer left no compiled form"))


def _check_paths(digests: Digests) -> Digests:
    for path in digests.files:
        if path.startswith("/") or ".." in path.split("/"):
            raise Refused(f"{DIGESTS_FILE} names {path}, which is no path inside of the model")
    return digests


def _is_whole(remembered: Digests, cache: Cache) -> bool:
    """Another server may have written what is remembered, paths that lead elsewhere among it."""
    try:
        _check_paths(remembered)
    except Refused:
        return False
    return all(map(cache.has, remembered.files.values()))


def _fetch_file(service: ArtifactService, cache: Cache, folder: str, path: str, digest: FileDigest) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            cache.put(partial(service.fetch, folder, path), digest)
            return
        except KeyError as error:
            raise Refused(f"MLflow has no file {path}") from error
        except Corrupt as error:
            log.warning("%s arrived as %s (try %d of %d)", path, error, attempt, _TRIES)
            if attempt == _TRIES:
                raise Refused(f"{path} is corrupt: {error}") from error


def _translated(uri: str, work: Callable[[Given], Got]) -> Callable[[Given], Got]:
    def translate(argument: Given) -> Got:
        try:
            return work(argument)
        except (Corrupt, Refused, Unreachable, OSError) as error:
            raise ModelLoadError(f"{uri} cannot be loaded: {error}") from error

    return translate
