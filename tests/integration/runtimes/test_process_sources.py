"""A source is pinned by its content, and runs as it was when it was pinned."""

import os
from pathlib import Path

import anyio
import pytest

from router.core.errors import ImageNotFound, InvalidSpec
from router.runtimes.base import Image, Role, Workload
from router.runtimes.process import ProcessRuntime
from router.runtimes.process_sources import Sources
from tests.contract.runtime_stages import Listener, make_workload
from tests.integration.runtimes.workshop import Workshop, run_to_end


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project" / "model"
    folder.mkdir(parents=True)
    (folder / "source.toml").write_text('train = ["python", "train.py"]\n')
    (folder / "train.py").write_text("print('first')\n")
    return tmp_path / "project"


@pytest.fixture
def sources(project: Path, tmp_path: Path) -> Sources:
    return Sources(project, tmp_path / "snapshots")


def test_a_digest_follows_the_content(project: Path, sources: Sources) -> None:
    first = sources.resolve("model")
    (project / "model" / "train.py").write_text("print('other')\n")
    other = sources.resolve("model")
    (project / "model" / "train.py").write_text("print('first')\n")

    assert other.digest != first.digest
    assert sources.resolve("model") == first


def test_a_digest_follows_names_permissions_packages_and_the_lock(project: Path, sources: Sources) -> None:
    package = project / "shared"
    package.mkdir()
    digests = [sources.resolve("model").digest]
    described = 'packages = ["../shared"]\nlock = "../requirements.lock"\ntrain = ["python", "train.py"]\n'
    (project / "requirements.lock").write_text("")
    (project / "model" / "source.toml").write_text(described)
    digests.append(sources.resolve("model").digest)
    (package / "shared.py").write_text("VALUE = 1\n")
    digests.append(sources.resolve("model").digest)
    (project / "requirements.lock").write_text("# nothing\n")
    digests.append(sources.resolve("model").digest)
    (project / "model" / "train.py").chmod(0o755)
    digests.append(sources.resolve("model").digest)
    (project / "model" / "train.py").rename(project / "model" / "trainer.py")
    digests.append(sources.resolve("model").digest)

    assert len(set(digests)) == len(digests)


def test_what_tools_leave_beside_the_source_does_not_count(project: Path, sources: Sources) -> None:
    before = sources.resolve("model")
    for left in (
        "__pycache__/train.cpython-311.pyc",
        ".git/HEAD",
        "venv/pyvenv.cfg",
        "venv/lib/x.py",
        "old.pyc",
    ):
        path = project / "model" / left
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("left")

    assert sources.resolve("model") == before


@pytest.mark.parametrize(
    "reference",
    ["../outside", "model/../../outside", "/etc", "model/link", "nothing", "", "model/train.py", "a\0b"],
)
def test_a_reference_that_is_no_source_folder_of_the_project_is_refused_by_name(
    project: Path, sources: Sources, reference: str
) -> None:
    outside = project.parent / "outside"
    outside.mkdir()
    (outside / "source.toml").write_text('train = ["python", "train.py"]\n')
    if reference == "model/link":
        (project / "model" / "link").symlink_to(outside)

    with pytest.raises(ImageNotFound) as caught:
        sources.resolve(reference)
    assert repr(reference) in caught.value.message


def test_a_folder_named_by_its_whole_path_is_taken_if_it_is_inside(project: Path, sources: Sources) -> None:
    assert sources.resolve(str(project / "model")).digest == sources.resolve("model").digest


@pytest.mark.parametrize("key", ["packages", "lock"])
def test_packages_and_lock_may_not_lead_outside(project: Path, sources: Sources, key: str) -> None:
    value = '["../../outside"]' if key == "packages" else '"../../outside"'
    (project / "model" / "source.toml").write_text(f'{key} = {value}\ntrain = ["python", "train.py"]\n')

    with pytest.raises(ImageNotFound, match="outside"):
        sources.resolve("model")


@pytest.mark.parametrize("target", ["train.py", "/etc/hostname"])
def test_a_symbolic_link_in_a_source_is_refused_by_name(project: Path, sources: Sources, target: str) -> None:
    (project / "model" / "linked").symlink_to(target)

    with pytest.raises(InvalidSpec, match="linked"):
        sources.resolve("model")


def test_a_special_file_in_a_source_is_refused_by_name(project: Path, sources: Sources) -> None:
    os.mkfifo(project / "model" / "pipe")

    with pytest.raises(InvalidSpec, match="pipe"):
        sources.resolve("model")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("train = [", "source.toml of source 'model'"),
        ("tain = ['python']", "tain"),
        ("train = 'python train.py'", "train"),
        ("train = []", "train"),
        ("packages = '../shared'", "packages"),
    ],
)
def test_a_mistake_in_a_description_is_named(project: Path, sources: Sources, text: str, named: str) -> None:
    (project / "model" / "source.toml").write_text(text)

    with pytest.raises(InvalidSpec, match=named):
        sources.resolve("model")


def test_a_folder_with_data_in_it_is_refused(
    project: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.runtimes.process_sources.MOST_BYTES", 1000)
    (project / "model" / "data.csv").write_bytes(b"x" * 1001)

    with pytest.raises(InvalidSpec, match="'model' holds more than"):
        sources.resolve("model")


def test_content_that_is_gone_is_not_replaced_by_what_is_there_now(project: Path, sources: Sources) -> None:
    now = sources.resolve("model").digest
    gone = "sha256:" + "0" * 64

    with pytest.raises(ImageNotFound) as caught:
        sources.open(Image("model", gone))
    assert gone in caught.value.message
    assert now in caught.value.message


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../outside", "sha256:" + "g" * 64])
def test_what_is_no_digest_is_refused(sources: Sources, digest: str) -> None:
    with pytest.raises(ImageNotFound):
        sources.open(Image("model", digest))


def test_no_half_made_copy_is_left_or_taken(project: Path, sources: Sources, tmp_path: Path) -> None:
    image = sources.resolve("model")
    for _ in range(3):
        sources.resolve("model")

    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [
        image.digest.removeprefix("sha256:")
    ]


@pytest.mark.anyio
async def test_a_digest_is_run_as_it_was_though_its_folder_has_changed(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    package = workshop.project / "shared"
    package.mkdir()
    (package / "shared.py").write_text("CODE = 11\n")
    workshop.add_source("model", "import shared, sys\nsys.exit(shared.CODE)", 'packages = ["../shared"]')
    pinned = await runtime.resolve_image("model")
    (package / "shared.py").write_text("CODE = 12\n")
    workshop.add_source("model", "import sys\nsys.exit(13)")
    listener = Listener(runtime)

    await runtime.launch(Workload("trn_1", Role.TRAINER, "name", pinned, {}))
    await listener.wait_for("trn_1")

    state = await runtime.inspect("trn_1")
    assert state is not None
    assert state.exit_code == 11
    assert (await run_to_end(runtime, "trn_2", "model")).exit_code == 13


@pytest.mark.parametrize("reference", ["loop", "x" * 5000, "."])
def test_a_reference_that_cannot_even_be_looked_up_is_refused_for_good(
    project: Path, sources: Sources, reference: str
) -> None:
    (project / "loop").symlink_to("loop")

    with pytest.raises(ImageNotFound):
        sources.resolve(reference)


@pytest.mark.anyio
async def test_a_digest_is_run_though_its_folder_is_gone(workshop: Workshop, runtime: ProcessRuntime) -> None:
    folder = workshop.add_source("model", "print('old')")
    image = await runtime.resolve_image("model")
    (folder / "source.toml").unlink()
    with pytest.raises(ImageNotFound):
        await runtime.resolve_image("model")
    listener = Listener(runtime)

    await runtime.launch(make_workload("trn_1", Role.TRAINER, image, {}))
    await listener.wait_for("trn_1")

    assert await runtime.logs("trn_1", 100) == "old\n"


@pytest.mark.anyio
async def test_resolving_at_once_keeps_one_copy(workshop: Workshop, runtime: ProcessRuntime) -> None:
    workshop.add_source("model", "")

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(runtime.resolve_image, "model")

    assert len(list((workshop.state / "sources").iterdir())) == 1
