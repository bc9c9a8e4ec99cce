"""Samples from the access log, whole and once each, whatever happens to the file meanwhile."""

import json
from pathlib import Path

import pytest

from router.core.errors import InvalidRequest
from router.proxies import access_log
from router.proxies.access_log import AccessLog, parse_line
from router.proxies.base import Sample


def line(at: object, **changes: object) -> str:
    entry = {
        "ts": at,
        "status": 200,
        "duration": 0.5,
        "endpoint": "default",
        "upstream": "127.0.0.1:8080",
        "latency_ms": 250.0,
    }
    return json.dumps(entry | changes) + "\n"


def times(found: tuple[list[Sample], str]) -> list[float]:
    return [sample.at for sample in found[0]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(lines)


def rotate(path: Path, second: int) -> None:
    """As Caddy does it: the file is renamed and a new one begun."""
    path.rename(path.with_name(f"access-2026-11-21T05-00-{second:02}.000-size.log"))
    path.touch()


def test_a_log_that_is_not_there_yet_is_read_from_its_beginning(path: Path) -> None:
    log = AccessLog(path)
    _, cursor = log.read(None)
    assert log.read(cursor) == ([], cursor)
    append(path, line(1))
    assert times(log.read(cursor)) == [1]


def test_without_a_cursor_it_begins_at_the_end(path: Path) -> None:
    append(path, *(line(at) for at in range(2000)))
    log = AccessLog(path)
    nothing, cursor = log.read(None)
    assert nothing == []
    append(path, line(2000))
    assert times(log.read(cursor)) == [2000]


def test_a_line_that_is_half_written_is_read_when_it_is_whole(path: Path) -> None:
    log = AccessLog(path)
    _, cursor = log.read(None)
    text = line(2)
    append(path, line(1), text[:20])
    found = log.read(cursor)
    assert times(found) == [1]
    append(path, text[20:])
    assert times(log.read(found[1])) == [2]


def test_a_cursor_taken_within_a_line_waits_for_its_end(path: Path) -> None:
    log = AccessLog(path)
    text = line(1)
    append(path, text[:20])
    _, cursor = log.read(None)
    append(path, text[20:], line(2))
    assert times(log.read(cursor)) == [1, 2]


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_rotation_loses_nothing_and_repeats_nothing(path: Path, rotations: int) -> None:
    log = AccessLog(path)
    append(path, line(0))
    _, cursor = log.read(None)
    expected = []
    for number in range(1, rotations + 1):
        append(path, line(2 * number))
        rotate(path, number)
        append(path, line(2 * number + 1))
        expected += [2 * number, 2 * number + 1]
    found = log.read(cursor)
    assert times(found) == expected
    assert log.read(found[1]) == ([], found[1])


def test_what_was_rotated_away_altogether_is_skipped(path: Path) -> None:
    log = AccessLog(path)
    append(path, line(1))
    _, cursor = log.read(None)
    rotate(path, 1)
    append(path, line(2))
    rotate(path, 2)
    append(path, line(3))
    path.with_name("access-2026-11-21T05-00-01.000-size.log").unlink()
    assert times(log.read(cursor)) == [2, 3]


def test_a_log_that_was_emptied_is_read_from_its_beginning(path: Path) -> None:
    log = AccessLog(path)
    append(path, line(1), line(2))
    _, cursor = log.read(None)
    path.write_text("")
    append(path, line(3))
    assert times(log.read(cursor)) == [3]


def test_a_long_gap_is_read_in_several_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AccessLog(path)
    _, cursor = log.read(None)
    append(path, *(line(at) for at in range(5)))
    rotate(path, 1)
    append(path, *(line(at) for at in range(5, 10)))
    monkeypatch.setattr(access_log, "MOST_BYTES", 3 * len(line(0)))
    found: list[float] = []
    calls = 0
    while len(found) < 10:
        samples, cursor = log.read(cursor)
        found += [sample.at for sample in samples]
        calls += 1
    assert found == list(range(10))
    assert calls > 2


def test_a_sample_is_what_the_server_took() -> None:
    assert parse_line(line(1.5).encode()) == Sample(1.5, "default", "127.0.0.1:8080", 200, 0.25)


def test_a_server_that_gave_no_answer_took_all_the_time() -> None:
    sample = parse_line(line(1, status=502, latency_ms="").encode())
    assert sample == Sample(1, "default", "127.0.0.1:8080", 502, 0.5)


def test_a_client_that_hung_up_is_told_from_a_server_that_failed() -> None:
    sample = parse_line(line(1, status=0, latency_ms="").encode())
    assert sample is not None
    assert sample.status == 499


def test_a_server_is_not_judged_by_a_body_that_broke_off() -> None:
    assert parse_line(line(1, status=400, latency_ms=None).encode()) is None
    refused = parse_line(line(1, status=400).encode())
    assert refused is not None
    assert refused.status == 400


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"ts": 1}', line(1, upstream=""), line("x"), line(None), '{"upstream": "a"}'],
)
def test_a_line_that_tells_of_no_server_is_no_sample(text: str) -> None:
    assert parse_line(text.encode()) is None


@pytest.mark.parametrize("cursor", ["", "1", "1:", "a:1", "1:-1", "1:2:3"])
def test_a_cursor_that_is_none_is_refused(path: Path, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        AccessLog(path).read(cursor)
