"""A full disk starts nothing, and takes no exit code away from what runs already."""

from collections.abc import Iterator

import pytest
from anyio import to_thread

from router.core.errors import StorageFull
from router.runtimes.process import ProcessRuntime
from tests.contract.runtime_stages import Listener
from tests.integration.runtimes.workshop import Workshop, launch, make_pipe, run_to_end
from tests.services.small_disk import SmallDisk, may_mount, mount_small_disk

pytestmark = pytest.mark.anyio

SIZE = 32 * 2**20
PAGE = 4096
FLOOD = "import os\nfor _ in range(20 * 2**10): os.write(1, b'x' * 1024)\n"


@pytest.fixture
def disk(workshop: Workshop) -> Iterator[SmallDisk]:
    """The workshop's state lies on it. Its last user is gone when it is unmounted, for all has ended."""
    with mount_small_disk(workshop.state, SIZE) as disk:
        yield disk


if may_mount():

    async def test_nothing_is_started_on_a_full_disk_and_all_is_well_once_there_is_room(
        workshop: Workshop, disk: SmallDisk
    ) -> None:
        workshop.add_source("trainer", "")
        runtime = workshop.make_runtime()
        await runtime.start()
        await runtime.resolve_image("trainer")
        disk.fill()

        with pytest.raises(StorageFull):
            await launch(runtime, "trn_1", "trainer")
        assert await runtime.list_owned() == []
        assert list((workshop.state / "workloads").iterdir()) == []

        disk.free()
        assert (await run_to_end(runtime, "trn_1", "trainer")).exit_code == 0
        await runtime.remove("trn_1")
        await runtime.close()

    async def test_a_disk_that_is_full_at_any_moment_of_a_launch_refuses_it_and_leaves_nothing(
        workshop: Workshop, disk: SmallDisk
    ) -> None:
        workshop.add_command("waits", "sleep", "1000", files={"data": "x" * 5 * PAGE})
        runtime = workshop.make_runtime()
        await runtime.start()
        await runtime.resolve_image("waits")
        disk.fill()
        refused = 0
        while await is_refused(runtime):
            refused += 1
            assert await runtime.list_owned() == []
            assert list((workshop.state / "workloads").iterdir()) == []
            disk.give_back(PAGE)  # so that it fails a moment later
        assert refused > 3
        assert [state.running for state in await runtime.list_owned()] == [True]
        await runtime.remove("trn_1")
        await runtime.close()

    async def is_refused(runtime: ProcessRuntime) -> bool:
        try:
            await launch(runtime, "trn_1", "waits")
        except StorageFull:
            return True
        return False

    async def test_a_source_that_does_not_fit_leaves_no_half_of_it(
        workshop: Workshop, disk: SmallDisk
    ) -> None:
        folder = workshop.add_source("trainer", "")
        (folder / "weights").write_bytes(b"x" * 2**20)
        runtime = workshop.make_runtime()
        await runtime.start()
        disk.fill()

        with pytest.raises(StorageFull):
            await runtime.resolve_image("trainer")

        assert list((workshop.state / "sources").glob("*")) == []
        await runtime.close()

    async def test_how_a_child_ended_is_known_though_the_disk_is_full(
        workshop: Workshop, disk: SmallDisk
    ) -> None:
        orders = make_pipe(workshop.directory / "orders")
        workshop.add_source(
            "trainer", f"code = int(open({str(orders)!r}).read())\n{FLOOD}raise SystemExit(code)"
        )
        runtime = workshop.make_runtime()
        await runtime.start()
        listener = Listener(runtime)
        await launch(runtime, "trn_1", "trainer")

        disk.fill()
        await to_thread.run_sync(orders.write_text, "23")
        await listener.wait_for("trn_1")

        state = await runtime.inspect("trn_1")
        assert state is not None
        assert state.exit_code == 23
        await runtime.remove("trn_1")
        await runtime.close()
