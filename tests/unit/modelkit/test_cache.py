"""What stays in a server's cache of files, and what goes."""

import os
import time
from pathlib import Path

import pytest

from modelkit.manifest import Digests, FileDigest
from modelkit.serve.cache import Cache, Remembered

HOUR = 60 * 60


def keep(cache: Cache, content: bytes) -> FileDigest:
    return cache.put(lambda write: write(content))


def make_old(path: Path, hours: float) -> None:
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))


def test_what_a_killed_fetch_left_goes_after_an_hour(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for folder in ("sha256", "models"):
        (tmp_path / folder / "part-old").touch()
        (tmp_path / folder / "part-new").touch()
        make_old(tmp_path / folder / "part-old", 1.1)
    cache.prune()
    assert {path.name for path in tmp_path.glob("*/*")} == {"part-new"}


def test_files_of_the_versions_used_last_stay_and_others_go_after_a_day(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    blobs = [keep(cache, f"version {number}".encode()) for number in range(12)]
    for number, blob in enumerate(blobs):
        uri = f"models:/Own/{number}"
        cache.remember(uri, Remembered("folder", Digests({"MLmodel": blob})))
        make_old(
            next(path for path in tmp_path.glob("models/*") if time.time() - path.stat().st_mtime < HOUR),
            50 - number,
        )
        make_old(cache.path(blob), 50)
    fresh = keep(cache, b"of a fetch that goes on")
    cache.prune()
    assert [cache.has(blob) for blob in blobs] == [False] * 2 + [True] * 10
    assert cache.has(fresh)
    assert [cache.recall(f"models:/Own/{number}") is not None for number in range(12)] == [False] * 2 + [
        True
    ] * 10


def test_a_version_that_is_used_no_more_stays_for_a_day(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    blob = keep(cache, b"file")
    make_old(cache.path(blob), 23)
    cache.prune()
    assert cache.has(blob)


def test_a_folder_of_a_cache_that_leads_elsewhere_is_not_pruned(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    make_old(elsewhere / "file", 50)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sha256").symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a link"):
        Cache(tmp_path / "cache")
