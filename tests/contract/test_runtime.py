"""What every runtime promises: the memory driver, real processes, and containers of a real engine, which the
router has directly or through a socket proxy."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from router.core.errors import ImageNotFound, UnsupportedSetting
from router.core.specs import Resources
from router.runtimes.base import Image, Role, WorkloadState, WorkloadStatus
from tests.contract.runtime_stages import (
    MISSING,
    OBEDIENT,
    STUBBORN,
    DockerStage,
    Listener,
    MemoryStage,
    ProcessStage,
    Stage,
    make_workload,
)
from tests.services.docker_puppets import Puppets
from tests.services.socket_proxy import SocketProxy

pytestmark = pytest.mark.anyio

GRACE = 30.0  # more than any obedient puppet needs


@pytest.fixture(scope="module")
def socket_proxy(puppets: Puppets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SocketProxy]:
    with puppets.run_socket_proxy(tmp_path_factory.mktemp("socket-proxy") / "log") as proxy:
        yield proxy


@pytest.fixture(params=["memory", "process", "docker", "docker-through-socket-proxy"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = open_stage(request, tmp_path)
    await stage.runtime.start()
    yield stage
    await stage.close()


def open_stage(request: pytest.FixtureRequest, directory: Path) -> Stage:
    match request.param:
        case "memory":
            return MemoryStage()
        case "process":
            return ProcessStage(directory)
        case "docker":
            address = request.getfixturevalue("docker_host")
        case _:
            address = request.getfixturevalue("socket_proxy").url
    return DockerStage(request.getfixturevalue("puppets"), address)


async def exit_code(stage: Stage, owner: str) -> int | None:
    state = await stage.runtime.inspect(owner)
    assert state is not None
    assert state.status is WorkloadStatus.EXITED
    return state.exit_code


async def test_a_launched_trainer_runs_and_is_found_by_its_owner(stage: Stage) -> None:
    launched = await stage.launch("trn_1")

    assert launched.status is WorkloadStatus.RUNNING
    assert (launched.owner, launched.name, launched.role) == ("trn_1", stage.name_of("trn_1"), Role.TRAINER)
    assert launched.started_at is not None
    assert (launched.exit_code, launched.finished_at, launched.address) == (None, None, None)
    assert await stage.runtime.inspect("trn_1") == launched


async def test_launching_an_owner_again_adopts_what_runs(stage: Stage) -> None:
    launched = await stage.launch("trn_1")

    assert await stage.launch("trn_1") == launched
    assert await stage.runtime.list_owned() == [launched]


async def test_launches_of_one_owner_at_once_are_one(stage: Stage) -> None:
    launched: list[WorkloadState] = []

    async def launch() -> None:
        launched.append(await stage.launch("trn_1"))

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(launch)

    assert len({(state.owner, state.started_at) for state in launched}) == 1
    assert len(await stage.runtime.list_owned()) == 1


async def test_launching_an_owner_again_adopts_what_has_ended(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("trn_1")
    await stage.end("trn_1", 3)
    await listener.wait_for("trn_1")

    assert (await stage.launch("trn_1")).exit_code == 3


@pytest.mark.parametrize("code", [0, 1, 77, 255])
async def test_the_exit_code_is_known(stage: Stage, code: int) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("trn_1")

    await stage.end("trn_1", code)
    await listener.wait_for("trn_1")

    assert await exit_code(stage, "trn_1") == code
    state = await stage.runtime.inspect("trn_1")
    assert state is not None
    assert state.finished_at is not None
    assert state.started_at is not None
    assert state.finished_at >= state.started_at


@pytest.mark.parametrize("number", [6, 9, 11])
async def test_the_signal_that_ended_it_is_known(stage: Stage, number: int) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("trn_1")

    await stage.be_killed("trn_1", number)
    await listener.wait_for("trn_1")

    assert await exit_code(stage, "trn_1") == 128 + number


async def test_stop_returns_when_it_has_ended(stage: Stage) -> None:
    await stage.launch("srv_1", role=Role.SERVER)
    await stage.make_ready("srv_1")

    await stage.runtime.stop("srv_1", GRACE)

    assert await exit_code(stage, "srv_1") == 128 + 15


async def test_what_ignores_sigterm_is_killed_after_the_grace(stage: Stage) -> None:
    await stage.launch("srv_1", STUBBORN, role=Role.SERVER)
    await stage.make_ready("srv_1")

    await stage.runtime.stop("srv_1", 0.05)

    assert await exit_code(stage, "srv_1") == 128 + 9


async def test_stopping_and_removing_may_be_repeated_and_need_nothing_there(stage: Stage) -> None:
    await stage.runtime.stop("trn_unknown", GRACE)
    await stage.runtime.remove("trn_unknown")
    await stage.launch("trn_1")
    for _ in range(2):
        await stage.runtime.stop("trn_1", GRACE)
    for _ in range(2):
        await stage.runtime.remove("trn_1")

    assert await stage.runtime.list_owned() == []


async def test_a_removed_workload_is_killed_and_forgotten(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("srv_1", STUBBORN, role=Role.SERVER, says="something")

    await stage.runtime.remove("srv_1")

    await listener.wait_for("srv_1")
    assert await stage.runtime.inspect("srv_1") is None
    assert await stage.runtime.logs("srv_1", 1000) == ""
    assert await stage.runtime.usage("srv_1") is None


async def test_a_removed_owner_can_be_launched_anew(stage: Stage) -> None:
    await stage.launch("trn_1")
    await stage.runtime.remove("trn_1")

    assert (await stage.launch("trn_1")).status is WorkloadStatus.RUNNING


async def test_everything_owned_is_listed_running_or_not(stage: Stage) -> None:
    for owner in ("trn_1", "trn_2", "srv_3"):
        await stage.launch(owner, role=Role.SERVER if owner.startswith("srv") else Role.TRAINER)
    await stage.runtime.stop("trn_1", GRACE)

    owned = {state.owner: state.status for state in await stage.runtime.list_owned()}

    running, exited = WorkloadStatus.RUNNING, WorkloadStatus.EXITED
    assert owned == {"trn_1": exited, "trn_2": running, "srv_3": running}


async def test_each_end_is_told_once(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    for owner in ("trn_1", "trn_2", "trn_3"):
        await stage.launch(owner)

    await stage.end("trn_1", 0)
    await listener.wait_for("trn_1")
    await stage.runtime.stop("trn_2", GRACE)
    await listener.wait_for("trn_2")
    await stage.runtime.remove("trn_1")

    assert sorted(listener.heard) == ["trn_1", "trn_2"]


async def test_an_end_by_removal_is_told_once(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("srv_1", STUBBORN, role=Role.SERVER)

    await stage.runtime.remove("srv_1")
    await listener.wait_for("srv_1")

    assert listener.heard == ["srv_1"]


async def test_only_what_is_stopped_ends(stage: Stage) -> None:
    await stage.launch("trn_1")
    other = await stage.launch("trn_2")
    await stage.make_ready("trn_1")

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(stage.runtime.stop, "trn_1", GRACE)

    assert await exit_code(stage, "trn_1") == 128 + 15
    assert await stage.runtime.inspect("trn_2") == other


async def test_no_letter_is_cut_in_half(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("trn_1", says="grüße")
    await stage.end("trn_1", 0)
    await listener.wait_for("trn_1")

    whole = await stage.runtime.logs("trn_1", 1000)
    for size in range(len(whole.encode()) + 1):
        assert whole.endswith(await stage.runtime.logs("trn_1", size))


async def test_logs_are_the_end_of_what_it_printed(stage: Stage) -> None:
    listener = Listener(stage.runtime)
    await stage.launch("trn_1", says="beginning … the end")
    await stage.end("trn_1", 0)
    await listener.wait_for("trn_1")

    assert (await stage.runtime.logs("trn_1", 1000)).strip() == "beginning … the end"
    assert (await stage.runtime.logs("trn_1", 8)).strip().endswith("the end")
    assert "beginning" not in await stage.runtime.logs("trn_1", 8)
    assert await stage.runtime.logs("trn_unknown", 8) == ""


async def test_each_server_has_an_address_of_its_own(stage: Stage) -> None:
    first = await stage.launch("srv_1", role=Role.SERVER)
    second = await stage.launch("srv_2", role=Role.SERVER)

    assert first.address is not None
    assert second.address is not None
    assert first.address != second.address


async def test_an_address_that_is_still_named_somewhere_is_not_given_out(stage: Stage) -> None:
    first = await stage.launch("srv_1", role=Role.SERVER)
    host, _, port = str(first.address).rpartition(":")
    named = frozenset(f"{host}:{int(port) + step}" for step in range(1, 5))

    second = await stage.launch("srv_2", role=Role.SERVER, avoid=named)

    assert second.address not in {first.address, *named}


async def test_what_runs_uses_memory_and_what_has_ended_does_not(stage: Stage) -> None:
    await stage.launch("trn_1")
    await stage.make_ready("trn_1")

    memory = await stage.runtime.memory()
    assert memory is None or min(memory.free, memory.used) > 0
    usage = await stage.runtime.usage("trn_1")
    assert usage is not None
    assert usage.memory_bytes > 0

    await stage.runtime.stop("trn_1", GRACE)
    assert await stage.runtime.usage("trn_1") is None


async def test_an_image_is_pinned_by_its_content(stage: Stage) -> None:
    reference = stage.image_of(OBEDIENT)
    image = await stage.runtime.resolve_image(reference)

    assert image.reference == reference
    assert image.digest.startswith("sha256:")
    assert await stage.runtime.resolve_image(reference) == image
    assert await stage.runtime.find_image(reference) == image
    assert await stage.runtime.resolve_image(reference, image.digest) == image


async def test_an_image_that_is_not_there_starts_nothing(stage: Stage) -> None:
    missing = stage.image_of(MISSING)
    with pytest.raises(ImageNotFound, match=missing):
        await stage.runtime.resolve_image(missing)
    with pytest.raises(ImageNotFound, match=missing):
        await stage.runtime.find_image(missing)
    image = Image(missing, "sha256:" + "0" * 64)
    with pytest.raises(ImageNotFound, match=missing):
        await stage.runtime.launch(make_workload("trn_1", Role.TRAINER, image, {}))

    assert await stage.runtime.list_owned() == []


async def test_what_cannot_be_honoured_is_refused_by_name(stage: Stage) -> None:
    await stage.runtime.refuse_unsupported(Resources(), None)
    with pytest.raises(UnsupportedSetting, match="gpus"):
        await stage.runtime.refuse_unsupported(Resources(), "all")


async def test_a_new_router_finds_what_the_last_one_launched(stage: Stage) -> None:
    running = await stage.launch("trn_1")
    server = await stage.launch("srv_1", role=Role.SERVER)

    await stage.replace_router()

    assert sorted(await stage.runtime.list_owned(), key=lambda state: state.owner) == [server, running]
    assert await stage.launch("trn_1") == running


async def test_a_new_router_hears_the_end_of_what_the_last_one_launched(stage: Stage) -> None:
    await stage.launch("trn_1")
    await stage.replace_router()
    listener = Listener(stage.runtime)

    await stage.end("trn_1", 5)
    await listener.wait_for("trn_1")

    assert await exit_code(stage, "trn_1") == 5


async def test_an_address_outlives_the_end_of_its_server_and_of_the_router(stage: Stage) -> None:
    server = await stage.launch("srv_1", role=Role.SERVER)
    await stage.runtime.stop("srv_1", GRACE)
    await stage.replace_router()

    ended = await stage.runtime.inspect("srv_1")

    assert ended is not None
    assert ended.address == server.address


async def test_a_router_that_is_gone_is_told_nothing(stage: Stage) -> None:
    gone = Listener(stage.runtime)
    await stage.launch("trn_1")
    await stage.replace_router()
    listener = Listener(stage.runtime)

    await stage.end("trn_1", 0)
    await listener.wait_for("trn_1")

    assert gone.heard == []


async def test_it_is_ready_for_launches(stage: Stage) -> None:
    await stage.runtime.check()
