"""Trainer specs on a real disk: edited, broken, half-written, removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from router.core.clock import SystemClock
from router.core.errors import InvalidSpec, UnknownTrainer
from router.engine.spec_files import MAX_FILE_BYTES, SpecFiles

NOW = 1_700_000_000.0
LONG_AGO = NOW - 3600


class EditingClock:
    """Time stands still, and while somebody sleeps, what a test has in store for that moment happens."""

    def __init__(self) -> None:
        self._now = NOW
        self.meanwhile: Callable[[], object] = lambda: None

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds
        self.meanwhile()


class Folder:
    """A folder of specs whose times the test sets. Its own last change is long ago unless said otherwise."""

    def __init__(self, path: Path, clock: EditingClock) -> None:
        self.path = path
        self._clock = clock
        path.mkdir()
        self._edited = LONG_AGO

    def write(self, name: str, text: str | bytes, *, just_now: bool = False) -> None:
        """As `just_now`, or at a moment of the past that no other edit has."""
        file = self.path / name
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        self._edited += 1
        at = self._clock.now() if just_now else self._edited
        os.utime(file, (at, at))
        self.touch(LONG_AGO)

    def remove(self, name: str, *, just_now: bool = False) -> None:
        (self.path / name).unlink()
        self.touch(self._clock.now() if just_now else LONG_AGO)

    def touch(self, at: float) -> None:
        os.utime(self.path, (at, at))


@pytest.fixture
def clock() -> EditingClock:
    return EditingClock()


@pytest.fixture
def folder(tmp_path: Path, clock: EditingClock) -> Folder:
    return Folder(tmp_path / "specs", clock)


@pytest.fixture
def specs(folder: Folder, clock: EditingClock) -> SpecFiles:
    return SpecFiles(folder.path, {"SOURCE": "sources/a"}, clock)


async def complaints(specs: SpecFiles) -> list[str]:
    return [str(problem) for problem in await specs.errors()]


async def test_the_files_of_a_folder_are_merged(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {source: '${SOURCE}'}\n")
    folder.write("b.yml", "two: {}\nthree: {}\n")
    folder.write("c.json", '{"four": {}}')
    folder.write("notes.txt", "five: {}")
    folder.write(".a.yaml.swp", "six: {}")
    (folder.path / "d.yaml").mkdir()
    folder.touch(LONG_AGO)
    assert sorted(await specs.trainers()) == ["four", "one", "three", "two"]
    assert (await specs.trainer("one")).source == "sources/a"
    assert (await specs.trainer("three")).where == "specs/b.yml, line 2"
    assert await specs.errors() == []


async def test_one_file_will_do(folder: Folder, clock: EditingClock) -> None:
    folder.write("all.yaml", "one: {}\n")
    specs = SpecFiles(folder.path / "all.yaml", {}, clock)
    assert (await specs.trainer("one")).where == "all.yaml, line 1"


async def test_an_edit_a_new_file_and_a_removed_one_are_seen_at_the_next_use(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {timeout: 1}\n")
    assert (await specs.trainer("one")).timeout == 1
    folder.write("a.yaml", "one: {timeout: 2}\n")
    folder.write("b.yaml", "two: {}\n")
    assert (await specs.trainer("one")).timeout == 2
    assert sorted(await specs.trainers()) == ["one", "two"]
    folder.remove("a.yaml")
    assert sorted(await specs.trainers()) == ["two"]


async def test_a_file_replaced_by_rename_is_seen(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {timeout: 1}\n")
    assert (await specs.trainer("one")).timeout == 1
    before = (folder.path / "a.yaml").stat().st_mtime
    (folder.path / "a.new").write_text("one: {timeout: 2}\n")
    os.utime(folder.path / "a.new", (before, before))
    (folder.path / "a.new").rename(folder.path / "a.yaml")
    assert (await specs.trainer("one")).timeout == 2


async def test_a_file_that_did_not_change_is_not_read_again(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {}\n")
    assert await specs.trainer("one") is await specs.trainer("one")


async def test_a_broken_file_keeps_its_last_good_trainers_and_says_what_is_wrong(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {timeout: 1}\n")
    folder.write("b.yaml", "two: {}\n")
    assert sorted(await specs.trainers()) == ["one", "two"]
    folder.write("a.yaml", "one:\n  timeout: soon\n")
    folder.write("b.yaml", "two: {timeout: 9}\n")
    assert (await specs.trainer("one")).timeout == 1
    assert (await specs.trainer("two")).timeout == 9
    assert await complaints(specs) == ["specs/a.yaml, line 2: one.timeout: must be a number"]
    assert specs.warnings_of(await specs.trainer("one")) == (
        "as its spec was before this: specs/a.yaml, line 2: one.timeout: must be a number",
    )
    assert specs.warnings_of(await specs.trainer("two")) == ()
    folder.write("a.yaml", "one: {timeout: 3}\n")
    assert (await specs.trainer("one")).timeout == 3
    assert await complaints(specs) == []


async def test_a_broken_file_that_is_removed_takes_its_trainers_and_errors_with_it(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {}\n")
    await specs.trainer("one")
    folder.write("a.yaml", "one: [\n")
    assert len(await specs.errors()) == 1
    folder.remove("a.yaml")
    assert (await specs.trainers(), await specs.errors()) == ({}, [])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"one: {}\n# caf\xe9\n", "specs/a.yaml, line 2: is not UTF-8 text"),
        (b"#" * (MAX_FILE_BYTES + 1), "specs/a.yaml: is larger than 1 MiB"),
    ],
)
async def test_what_is_no_text_is_said_to_be_none(
    folder: Folder, specs: SpecFiles, content: bytes, complaint: str
) -> None:
    folder.write("a.yaml", content)
    assert await complaints(specs) == [complaint]


async def test_a_byte_order_mark_is_no_part_of_a_name(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", b"\xef\xbb\xbfone: {}\n")
    await specs.trainer("one")


async def test_a_dangling_link_is_no_file(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {}\n")
    (folder.path / "b.yaml").symlink_to("nowhere.yaml")
    folder.touch(LONG_AGO)
    assert sorted(await specs.trainers()) == ["one"]


async def test_an_unknown_trainer_is_refused_with_the_known_ones_and_the_errors(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {}\n")
    folder.write("b.yaml", "two: 3\n")
    with pytest.raises(UnknownTrainer, match="there is no trainer two") as caught:
        await specs.trainer("two")
    assert caught.value.hint == (
        "known trainers: one; the specs have errors: specs/b.yaml, line 1: two: must be a map of fields"
    )


async def test_a_trainer_in_two_files_is_refused_naming_both(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {}\n")
    folder.write("b.yaml", "two: {}\n\none: {}\n")
    places = "this trainer stands in specs/a.yaml, line 1 and in specs/b.yaml, line 3"
    with pytest.raises(InvalidSpec, match=places):
        await specs.trainer("one")
    assert await complaints(specs) == [f"specs/b.yaml, line 3: one: {places}; none of them is used"]
    assert sorted(await specs.trainers()) == ["two"]


async def test_a_trainer_stays_with_the_file_that_had_it_when_another_one_claims_it(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("b.yaml", "one: {timeout: 1}\n")
    assert (await specs.trainer("one")).timeout == 1
    folder.write("a.yaml", "one: {timeout: 2}\n")
    assert (await specs.trainer("one")).timeout == 1
    places = "specs/a.yaml, line 1 and in specs/b.yaml, line 1"
    outcome = "the one in specs/b.yaml stays in force"
    assert await complaints(specs) == [
        f"specs/a.yaml, line 1: one: this trainer stands in {places}; {outcome}"
    ]
    folder.remove("b.yaml")
    assert (await specs.trainer("one")).timeout == 2
    assert await complaints(specs) == []


async def test_a_file_in_the_middle_of_being_written_changes_nothing_yet(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {timeout: 1}\n")
    assert (await specs.trainer("one")).timeout == 1
    for half_written in ("", "one:\n  timeout: [", "one: {}\n"):
        folder.write("a.yaml", half_written, just_now=True)
        assert (await specs.trainers())["one"].timeout == 1
        assert await specs.errors() == []


async def test_a_command_waits_for_a_file_that_is_being_written(
    folder: Folder, specs: SpecFiles, clock: EditingClock
) -> None:
    folder.write("a.yaml", "one:\n", just_now=True)
    clock.meanwhile = lambda: folder.write("a.yaml", "one: {timeout: 2}\n")
    assert (await specs.trainer("one")).timeout == 2


async def test_a_file_that_an_editor_moves_away_for_a_moment_keeps_its_trainers(
    folder: Folder, specs: SpecFiles, clock: EditingClock
) -> None:
    folder.write("a.yaml", "one: {timeout: 1}\n")
    await specs.trainer("one")
    folder.remove("a.yaml", just_now=True)
    assert sorted(await specs.trainers()) == ["one"]
    clock.meanwhile = lambda: folder.write("a.yaml", "one: {timeout: 2}\n")
    assert (await specs.trainer("one")).timeout == 2


async def test_a_file_that_does_not_come_back_is_gone(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {}\n")
    await specs.trainer("one")
    folder.remove("a.yaml", just_now=True)
    with pytest.raises(UnknownTrainer):
        await specs.trainer("one")


async def test_a_clock_that_is_wrong_keeps_no_file_from_being_read(folder: Folder, specs: SpecFiles) -> None:
    folder.write("a.yaml", "one: {}\n")
    os.utime(folder.path / "a.yaml", (NOW + 86_400, NOW + 86_400))
    assert sorted(await specs.trainers()) == ["one"]


async def test_a_folder_that_cannot_be_read_keeps_what_was_read_and_shows(
    folder: Folder, specs: SpecFiles
) -> None:
    folder.write("a.yaml", "one: {}\n")
    await specs.trainer("one")
    elsewhere = folder.path.rename(folder.path.with_name("elsewhere"))
    assert sorted(await specs.trainers()) == ["one"]
    assert await complaints(specs) == [f"{folder.path}: SPECS_PATH cannot be read: No such file or directory"]
    elsewhere.rename(folder.path)
    assert await complaints(specs) == []


async def test_a_folder_that_was_never_there_has_no_trainers_and_says_so(
    tmp_path: Path, clock: EditingClock
) -> None:
    specs = SpecFiles(tmp_path / "nowhere", {}, clock)
    with pytest.raises(UnknownTrainer) as caught:
        await specs.trainer("one")
    assert "SPECS_PATH cannot be read" in str(caught.value.hint)


async def test_whoever_saves_a_file_and_asks_at_once_is_answered_from_that_file(tmp_path: Path) -> None:
    specs = SpecFiles(tmp_path, {}, SystemClock())
    for timeout in (1, 2):
        (tmp_path / "a.yaml").write_text(f"one: {{timeout: {timeout}}}\n")
        assert (await specs.trainer("one")).timeout == timeout
