"""Each lock has one virtual environment, made once, from where this machine's packages come from."""

import asyncio
from pathlib import Path

import pytest

from router.core.errors import LaunchFailed
from router.runtimes.process import ProcessRuntime
from scripts.service_commands import ROOT
from tests.contract.runtime_stages import Listener
from tests.integration.runtimes.workshop import Workshop, launch

pytestmark = pytest.mark.anyio

PACKAGE = "iniconfig"  # pure, tiny, and locked with hashes for the router's own tests


def lock_one_package() -> str:
    """The lines of the development lock that pin it, with its hashes."""
    lines = (ROOT / "requirements" / "dev.lock").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{PACKAGE}=="))
    end = next(n for n in range(start + 1, len(lines)) if not lines[n].startswith("    --hash"))
    return "\n".join(lines[start:end]) + "\n"


def add_locked_source(workshop: Workshop, name: str, lock: str) -> Path:
    script = f"import os, sys, {PACKAGE}\nprint(sys.prefix, os.environ['VIRTUAL_ENV'])\n"
    folder = workshop.add_source(name, script, 'lock = "requirements.lock"')
    (folder / "requirements.lock").write_text(lock)
    return folder


async def test_sources_with_the_same_lock_share_an_environment_that_is_made_once(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    listener = Listener(runtime)
    for name in ("one", "two"):
        add_locked_source(workshop, name, lock_one_package())

    await asyncio.gather(launch(runtime, "trn_1", "one"), launch(runtime, "trn_2", "two"))

    printed = []
    for owner in ("trn_1", "trn_2"):
        await listener.wait_for(owner)
        state = await runtime.inspect(owner)
        printed.append(await runtime.logs(owner, 1000))
        assert state is not None
        assert state.exit_code == 0, printed
    assert printed[0] == printed[1]
    prefix, named = printed[0].split()
    assert prefix == named
    environments = [path for path in (workshop.state / "environments").iterdir() if path.is_dir()]
    assert [str(path) for path in environments] == [prefix]


async def test_an_environment_that_was_cut_short_is_made_again(
    workshop: Workshop, runtime: ProcessRuntime
) -> None:
    add_locked_source(workshop, "one", lock_one_package())
    listener = Listener(runtime)
    await launch(runtime, "trn_1", "one")
    await listener.wait_for("trn_1")
    (environment,) = (path for path in (workshop.state / "environments").iterdir() if path.is_dir())
    (environment / ".ready").unlink()
    for installed in environment.glob(f"lib/*/site-packages/{PACKAGE}/*.py"):
        installed.unlink()

    await launch(runtime, "trn_2", "one")
    await listener.wait_for("trn_2")

    state = await runtime.inspect("trn_2")
    assert state is not None
    assert state.exit_code == 0


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (f"{lock_one_package().split()[0]} --hash=sha256:{'0' * 64}\n", "[Hh]ash"),
        (f"{lock_one_package().split()[0]}\n", "[Hh]ash"),
        ("==\n", "requirements.lock"),
    ],
)
async def test_packages_that_cannot_be_installed_say_why_and_start_nothing(
    workshop: Workshop, runtime: ProcessRuntime, lock: str, said: str
) -> None:
    add_locked_source(workshop, "one", lock)

    with pytest.raises(LaunchFailed, match=said):
        await launch(runtime, "trn_1", "one")

    assert await runtime.list_owned() == []
    assert not list((workshop.state / "environments").glob("*/.ready"))
