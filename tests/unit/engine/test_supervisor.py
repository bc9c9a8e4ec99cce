"""Servers that die, and routers that die: users go on getting the right model."""

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from router.core.errors import RuntimeUnavailable, StandingBy, StorageFull
from router.core.models import Server, ServerPhase
from router.core.strategies import Strategy
from router.core.traffic import Traffic
from router.engine import status
from router.engine.engine import LeadLost
from router.runtimes.base import Image, Role, Workload
from tests.unit.engine.yard import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def test_the_warm_server_takes_over_when_the_active_one_dies(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        launches = len(yard.runtime.launched)
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.settle()
        assert await yard.served_version() == first
        assert await yard.alias() == first
        assert len(yard.runtime.launched) == launches
        await yard.clock.advance(1)
        dead = await yard.server(rollout.server_id)
        assert dead.phase is ServerPhase.STOPPED
        assert dead.exit_code == 137


async def test_without_a_warm_server_a_new_one_of_the_same_version_is_launched_and_proved(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
        yard.answers.asked.clear()
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.settle()
        active = (await yard.proxy.read_traffic("default")).active
        assert active is not None
        assert active.server_id != rollout.server_id
        assert active.model_version == version
        assert (active.server_id, "/invocations") in yard.answers.asked
        assert active.address != (await yard.server(rollout.server_id)).address


async def test_a_server_that_keeps_dying_is_replaced_with_growing_pauses(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, version)
        for _ in range(6):
            active = (await yard.proxy.read_traffic("default")).active
            assert active is not None
            yard.runtime.end(active.server_id, 137)
            await yard.clock.settle()
        launched_at_once = len(yard.runtime.launched)
        assert launched_at_once < 6
        await yard.clock.advance(60)
        assert len(yard.runtime.launched) > launched_at_once
        active = (await yard.proxy.read_traffic("default")).active
        assert active is not None
        assert active.server_id in yard.runtime.running()


async def test_what_a_rollout_has_just_retired_is_never_restarted(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        launches = len(yard.runtime.launched)
        yard.runtime.end(str(rollout.previous_server_id), 1)
        await yard.clock.advance(60)
        assert len(yard.runtime.launched) == launches
        assert (await yard.server(rollout.previous_server_id)).phase is ServerPhase.STOPPED
        assert await yard.served_version() == second


async def test_after_a_reboot_what_the_directories_name_comes_back(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
    yard.runtime.end(str(rollout.server_id), None)
    async with yard.run():
        active = (await yard.proxy.read_traffic("default")).active
        assert active is not None
        assert active.model_version == version
        assert active.server_id in yard.runtime.running()


async def test_a_router_that_starts_beside_a_live_server_leaves_it_alone(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
    async with yard.run():
        await yard.clock.advance(60)
        assert yard.runtime.running() == [rollout.server_id]
        assert len(yard.runtime.launched) == 1


async def test_a_leftover_without_a_record_is_removed(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
        launched = yard.runtime.launched[0]
        stray = type(launched)(**(launched.__dict__ | {"owner": "srv_stray", "name": "stray"}))
        await yard.runtime.launch(stray)
        await yard.clock.advance(15)
        assert yard.runtime.running() == [rollout.server_id]


async def test_a_server_that_only_the_directory_knows_is_adopted(yard: Yard) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        rollout = await yard.roll(engine, version)
    yard.store = type(yard.store)()
    async with yard.run():
        await yard.clock.advance(15)
        server = await yard.store.get(Server, str(rollout.server_id))
        assert server.phase is ServerPhase.READY
        assert await yard.served_version() == version
        assert yard.runtime.running() == [rollout.server_id]


async def test_a_server_that_is_slow_to_stop_does_not_keep_a_dead_one_from_being_replaced(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [yard.add_version() for _ in range(3)]

    async def stop_never(owner: str, grace_seconds: float) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(yard.runtime, "stop", stop_never)
    async with yard.run() as engine:
        rollouts = [await yard.roll(engine, version) for version in versions]
        assert (await yard.server(rollouts[0].server_id)).phase is ServerPhase.DRAINING
        yard.runtime.end(str(rollouts[2].server_id), 137)
        await yard.clock.settle()
        assert await yard.served_version() == versions[1]


async def test_a_registry_that_hangs_does_not_keep_a_dead_server_from_being_replaced(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = yard.add_version(), yard.add_version()

    async def set_never(name: str, alias: str, version: int) -> None:
        await anyio.sleep_forever()

    async with yard.run() as engine:
        await yard.roll(engine, first)
        rollout = await yard.roll(engine, second)
        monkeypatch.setattr(yard.registry, "set_alias", set_never)
        for dead in (rollout.server_id, rollout.previous_server_id):
            yard.runtime.end(str(dead), 137)
            await yard.clock.settle()
        active = (await yard.proxy.read_traffic("default")).active
        assert active is not None
        assert active.server_id in yard.runtime.running()


async def test_a_full_store_does_not_keep_the_server_before_from_taking_over(yard: Yard) -> None:
    """Nor does it while there is something else about that server that cannot be written down."""
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        before = await yard.server((await yard.roll(engine, first)).server_id)
        yard.proxy.busy[str(before.address)] = 1
        rollout = await yard.roll(engine, second)
        yard.store.fail_writes_with = StorageFull()
        yard.proxy.busy.clear()
        await yard.clock.advance(5)
        assert (await yard.server(before.id)).phase is ServerPhase.RETIRING
        yard.runtime.end(str(rollout.server_id), 137)
        await yard.clock.advance(2)
        assert await yard.served_version() == first
        yard.store.fail_writes_with = None
        await yard.clock.advance(2)
        assert (await yard.server(before.id)).phase is ServerPhase.READY
        assert (await yard.server(rollout.server_id)).phase is ServerPhase.STOPPED


async def test_an_endpoint_that_somebody_has_deleted_is_put_back(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await yard.roll(engine, yard.add_version())
        before = await yard.proxy.read_traffic("default")
        del yard.proxy._traffic["default"]
        await yard.clock.advance(60)
        assert await yard.proxy.read_traffic("default") == before
        assert yard.runtime.running() == [rollout.server_id]


async def test_a_leftover_that_cannot_be_stopped_does_not_keep_the_others(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = yard.runtime.stop

    async def stop_or_not(owner: str, grace_seconds: float) -> None:
        if owner == "srv_stuck":
            raise RuntimeUnavailable("it could not be killed")
        await stop(owner, grace_seconds)

    monkeypatch.setattr(yard.runtime, "stop", stop_or_not)
    for owner in ("srv_stuck", "srv_other"):
        await yard.runtime.launch(
            Workload(
                owner=owner, role=Role.SERVER, name=owner, image=Image("sources/iris", "sha256:1"), env={}
            )
        )
    async with yard.run():
        await yard.clock.advance(1)
        assert yard.runtime.running() == ["srv_stuck"]


async def test_what_somebody_has_changed_of_an_endpoint_is_mended(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        before = await yard.proxy.read_traffic("default")
        yard.proxy.changed_by_hand.add("default")
        await yard.clock.advance(yard.policy.sweep_seconds)
        assert yard.proxy.changed_by_hand == set()
        assert await yard.proxy.read_traffic("default") == before


async def test_slots_that_come_back_give_no_share_to_a_candidate_of_the_past(yard: Yard) -> None:
    plan = Strategy.model_validate(
        {"strategy": "canary", "steps": [10], "hold": 600, "analysis": {"enabled": False}}
    )
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        before = await yard.proxy.read_traffic("default")
        rollout = await yard.roll(engine, yard.add_version(), plan=plan)
        shared = await yard.proxy.read_traffic("default")
        assert shared.candidate is not None
        await engine.steering.abort(rollout.id)
        await yard.clock.advance(yard.policy.sweep_seconds)
        await lose_slots(yard, shared)
        assert await yard.proxy.read_traffic("default") == before


async def test_slots_that_come_back_give_users_the_heir_and_not_the_candidate(yard: Yard) -> None:
    plan = Strategy.model_validate(
        {"strategy": "canary", "steps": [10], "hold": 600, "analysis": {"enabled": False}}
    )
    async with yard.run() as engine:
        first = await yard.roll(engine, yard.add_version())
        await yard.roll(engine, yard.add_version(), plan=plan)
        yard.runtime.end(str(first.server_id), 137)
        await yard.clock.advance(yard.policy.sweep_seconds)
        before = await yard.proxy.read_traffic("default")
        assert before.active is not None
        assert before.active.server_id != first.server_id
        await lose_slots(yard, Traffic())
        assert (await yard.proxy.read_traffic("default")).active == before.active


async def test_slots_are_given_back_though_the_disk_is_full_at_first(yard: Yard) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        older = await yard.proxy.read_traffic("default")
        await yard.roll(engine, yard.add_version())
        newer = await yard.proxy.read_traffic("default")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yard.proxy, "set_traffic", refuse_for_want_of_room)
            await lose_slots(yard, older)
            assert await yard.proxy.read_traffic("default") == older
        await yard.clock.advance(yard.policy.sweep_seconds)
        assert await yard.proxy.read_traffic("default") == newer


async def refuse_for_want_of_room(endpoint: str, traffic: Traffic) -> None:
    raise StorageFull(f"no room for the traffic of {endpoint}")


async def lose_slots(yard: Yard, restored: Traffic) -> None:
    """Somebody deletes them, and they come back in an earlier state."""
    ensure = yard.proxy.ensure_endpoints

    async def restore(names: Sequence[str]) -> None:
        await ensure(names)
        yard.proxy._traffic["default"] = restored

    del yard.proxy._traffic["default"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yard.proxy, "ensure_endpoints", restore)
        await yard.clock.advance(yard.policy.sweep_seconds)


@pytest.mark.parametrize("shared", [False, True])
async def test_slots_that_come_back_older_than_they_were_do_not_take_users_to_an_older_server(
    yard: Yard, shared: bool
) -> None:
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version())
        older = await yard.proxy.read_traffic("default")
        rollout = await yard.roll(engine, yard.add_version())
        if shared:
            newer = await yard.proxy.read_traffic("default")
            older = Traffic(active=older.active, candidate=newer.active, weight=50)
        await lose_slots(yard, older)
        traffic = await yard.proxy.read_traffic("default")
        assert traffic.active is not None
        assert (traffic.active.server_id, traffic.candidate) == (rollout.server_id, None)


async def test_a_server_that_hangs_is_not_called_healthy_and_status_does_not_wait_for_it(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await yard.roll(engine, yard.add_version())
        await yard.clock.advance(3)
        assert (await engine.health.serving("default")).healthy
        yard.answers.unready.add(rollout.serve_image)
        await yard.clock.advance(3)
        asked = len(yard.answers.asked)
        assert not (await engine.health.serving("default")).healthy
        assert len(yard.answers.asked) == asked


async def test_readiness_names_all_that_is_missing_and_waits_for_nobody(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        assert await engine.health.ready() == dict.fromkeys(("registry", "runtime", "proxy", "store"), "ok")
        monkeypatch.setattr(status, "CHECK_SECONDS", 0.0)
        monkeypatch.setattr(yard.registry, "check", anyio.sleep_forever)
        del yard.proxy._traffic["default"]
        parts = await engine.health.ready()
        assert parts["registry"] == "does not answer within 0 s"
        assert parts["proxy"] == "there is no endpoint default"


async def test_a_router_that_does_not_lead_its_store_stands_by(yard: Yard) -> None:
    yard.store.leads = False
    async with yard.run() as engine:
        with pytest.raises(StandingBy, match="another router leads with this store"):
            engine.require_lead()
        yard.store.leads = True
        await yard.clock.advance(3)
        await yard.roll(engine, yard.add_version())


async def test_a_router_that_has_lost_the_lead_of_its_store_ends(yard: Yard) -> None:
    async def lead_and_lose() -> None:
        async with yard.run():
            yard.store.leads = False
            await yard.clock.advance(3)

    with pytest.raises(ExceptionGroup, match="unhandled errors") as caught:
        await lead_and_lose()
    assert caught.group_contains(LeadLost)
