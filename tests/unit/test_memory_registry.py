"""What tests can do to the registry in memory beyond what the contract suite shows."""

import pytest

from router.core.errors import RegistryUnavailable
from router.registries.memory import MemoryRegistry

pytestmark = pytest.mark.anyio


async def test_it_fails_until_it_is_told_to_work_again() -> None:
    registry = MemoryRegistry()
    version = registry.add_version("DiabetesRF", input_example=b"{}")
    registry.fail_with(RegistryUnavailable())
    with pytest.raises(RegistryUnavailable):
        await registry.create_run("experiment", "trn_1", {})
    with pytest.raises(RegistryUnavailable):
        await registry.register("DiabetesRF", "run", "models:/m-1")
    with pytest.raises(RegistryUnavailable):
        await registry.input_example("DiabetesRF", 1)
    registry.fail_with(None)
    assert await registry.version("DiabetesRF", 1) == version


async def test_a_version_may_belong_to_a_run_or_to_none() -> None:
    registry = MemoryRegistry()
    run_id = await registry.create_run("experiment", "trn_1", {})
    registry.add_version("DiabetesRF")
    version = registry.add_version("DiabetesRF", run_id)
    assert version.version == 2
    assert await registry.versions_of_run(run_id) == [version]
    assert len(await registry.logged_models(run_id)) == 1


async def test_its_ids_are_the_same_each_time() -> None:
    first, second = MemoryRegistry(), MemoryRegistry()
    assert await first.create_run("e", "trn_1", {}) == await second.create_run("e", "trn_9", {})
