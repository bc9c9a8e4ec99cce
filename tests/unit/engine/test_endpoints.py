"""Endpoints come and go by command, whatever goes on at them and whoever dies in between."""

import re
from pathlib import Path

import pytest

from router.core.errors import (
    EndpointClosing,
    EndpointExists,
    InvalidRequest,
    ProxyUnavailable,
    RegistryUnavailable,
    RolloutInProgress,
    UnknownEndpoint,
    UnsupportedSetting,
)
from router.core.models import Endpoint, EndpointPhase, Rollout, RolloutPhase, Server, ServerPhase, Training
from router.core.traffic import Traffic
from router.engine.commands import Caller, RolloutRequest, TrainingRequest
from router.engine.engine import Engine
from tests.unit.engine.yard import EXAMPLE, Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def add(engine: Engine, *names: str, alias: str | None = None) -> list[Endpoint]:
    return await engine.endpoints.add(names, alias=alias, by="10.0.0.1", reason="because")


async def remove(yard: Yard, engine: Engine, name: str, *, force: bool = False) -> EndpointPhase:
    await engine.endpoints.remove(name, by="10.0.0.1", reason="no more", force=force)
    await yard.clock.settle()
    return (await yard.store.get(Endpoint, name)).phase


async def served(yard: Yard, endpoint: str) -> int | None:
    active = (await yard.proxy.read_traffic(endpoint)).active
    return active.model_version if active else None


async def test_a_late_look_of_its_removal_leaves_an_endpoint_that_was_added_again_alone(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        assert await remove(yard, engine, "fraud") is EndpointPhase.CLOSED
        await add(engine, "fraud")
        closing = engine.endpoints._supervisor._closing
        closing._empty.add("fraud")
        await closing._remove_empty()
        assert await yard.proxy.read_traffic("fraud") == Traffic()
        assert (await yard.store.get(Endpoint, "fraud")).phase is EndpointPhase.OPEN


# --- adding ----------------------------------------------------------------------------------------------


async def test_any_number_is_added_with_one_reload_and_each_is_served_by_itself(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        before = yard.proxy.reloads
        names = [f"team-{number}" for number in range(100)]
        added = await add(engine, *names)
        assert [endpoint.id for endpoint in added] == names
        assert yard.proxy.reloads == before + 1
        await yard.roll(engine, first)
        await yard.roll(engine, second, endpoint="team-7")
        assert [await served(yard, name) for name in ("default", "team-7", "team-8")] == [1, 2, None]
        assert await yard.registry.aliases("Iris") == {"deployed": 1, "deployed-team-7": 2}


async def test_who_added_it_and_why_is_recorded(yard: Yard) -> None:
    async with yard.run() as engine:
        (endpoint,) = await add(engine, "fraud")
        assert (endpoint.requested_by, endpoint.reason) == ("10.0.0.1", "because")
        events = await yard.store.events("fraud")
        assert [event.text for event in events] == ["endpoint fraud is added by 10.0.0.1: because"]


async def test_one_that_is_there_already_stays_as_it_is(yard: Yard) -> None:
    async with yard.run() as engine:
        first = await add(engine, "fraud", alias="live")
        before = yard.proxy.reloads
        assert await add(engine, "fraud") == first
        assert await add(engine, "fraud", alias="live") == first
        assert yard.proxy.reloads == before


async def test_no_two_endpoints_share_a_name_or_an_alias(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud", alias="live")
        for name, alias in (("Fraud", None), ("fraud", "other"), ("churn", "Live"), ("a", "deployed")):
            with pytest.raises(EndpointExists):
                await add(engine, name, alias=alias)
        with pytest.raises(EndpointExists, match=r"deployed-a-b of a\.b"):
            await add(engine, "a-b", "a.b")
        assert [each.id for each in await yard.store.find(Endpoint)] == ["default", "fraud"]


async def test_what_the_proxy_refuses_is_not_there_afterwards(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(names: object) -> None:
        raise ProxyUnavailable("Caddy refused it")

    async with yard.run() as engine:
        with monkeypatch.context() as patched:
            patched.setattr(yard.proxy, "ensure_endpoints", refuse)
            with pytest.raises(ProxyUnavailable):
                await add(engine, "fraud", "churn")
            await yard.clock.settle()
        with pytest.raises(UnknownEndpoint):
            await yard.roll(engine, yard.add_version(), endpoint="fraud")
        assert (await add(engine, "fraud"))[0].phase is EndpointPhase.OPEN


async def test_what_a_killed_router_had_recorded_is_added_by_the_next(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
    await yard.proxy.remove_endpoints(["fraud"])
    async with yard.run() as engine:
        await yard.roll(engine, yard.add_version(), endpoint="fraud")
        assert await served(yard, "fraud") == 1


async def test_slots_that_no_record_knows_are_an_endpoint(yard: Yard) -> None:
    await yard.proxy.ensure_endpoints(["fraud"])
    async with yard.run() as engine:
        assert (await yard.store.get(Endpoint, "fraud")).alias == "deployed-fraud"
        await yard.roll(engine, yard.add_version(), endpoint="fraud")
        assert await served(yard, "fraud") == 1


async def test_an_alias_setting_that_an_endpoint_has_already_is_refused_by_name(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud", alias="live")
        context = engine.context
    context.policy = type(context.policy)(**{**vars(context.policy), "production_alias": "live"})
    refused = Engine(context, yard.lock)
    async with refused.running():
        await yard.clock.settle()
        assert "PRODUCTION_ALIAS=live is the alias of endpoint fraud" in refused.standing_by_because
    with pytest.raises(UnsupportedSetting):
        raise UnsupportedSetting(refused.standing_by_because)


@pytest.mark.parametrize("name", ["Team.A.", "x" * 63, "a_b-c"])
async def test_the_name_of_an_endpoints_server_is_a_hosts(yard: Yard, name: str) -> None:
    async with yard.run() as engine:
        await add(engine, name)
        rollout = await yard.roll(engine, yard.add_version(), endpoint=name)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", (await yard.server(rollout.server_id)).name)


# --- unknown ones ----------------------------------------------------------------------------------------


async def test_an_unknown_endpoint_is_named_with_the_known_ones(yard: Yard) -> None:
    yard.add_version()
    async with yard.run() as engine:
        await add(engine, "fraud")
        for command in (
            engine.commands.start_rollout(RolloutRequest(name="Iris", ref=1, endpoint="fruad"), Caller()),
            engine.commands.roll_back(Caller(), endpoint="fruad"),
            engine.commands.start_training(
                TrainingRequest(trainer="iris", then_roll=True, endpoint="fruad"), Caller()
            ),
            engine.health.serving("fruad"),
            engine.endpoints.remove("fruad", by=None, reason=None, force=False),
        ):
            with pytest.raises(UnknownEndpoint, match="no endpoint fruad") as refused:
                await command
            assert refused.value.hint == "known endpoints: default, fraud; POST /admin/endpoints adds others"


# --- removing --------------------------------------------------------------------------------------------


async def test_a_removed_endpoint_leaves_nothing_that_runs_and_no_alias(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await add(engine, "fraud")
        await yard.roll(engine, first)
        for version in (first, second):
            await yard.roll(engine, version, endpoint="fraud")
        assert len(yard.runtime.running()) == 3
        assert await remove(yard, engine, "fraud") is EndpointPhase.CLOSED
        assert len(yard.runtime.running()) == 1
        assert await yard.proxy.endpoints() == ["default"]
        assert await yard.registry.aliases("Iris") == {"deployed": first}
        servers = await yard.store.find(Server, endpoint="fraud")
        assert {server.phase for server in servers} == {ServerPhase.STOPPED}
        assert [event.text for event in await yard.store.events("fraud")][-2:] == [
            "endpoint fraud is removed by 10.0.0.1: no more",
            "endpoint fraud is gone",
        ]


async def test_a_server_that_still_answers_is_not_stopped_and_the_slots_stay_until_then(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        rollout = await yard.roll(engine, yard.add_version(), endpoint="fraud")
        server = await yard.server(rollout.server_id)
        yard.proxy.busy[str(server.address)] = 1
        assert await remove(yard, engine, "fraud") is EndpointPhase.CLOSING
        assert await yard.proxy.read_traffic("fraud") == Traffic()
        assert yard.runtime.running() == [server.id]
        assert yard.runtime.stopped == []
        with pytest.raises(EndpointClosing):
            await add(engine, "fraud")
        with pytest.raises(UnknownEndpoint, match="being removed"):
            await yard.roll(engine, 1, endpoint="fraud")
        yard.proxy.busy.clear()
        await yard.clock.advance(1)
        assert (await yard.store.get(Endpoint, "fraud")).phase is EndpointPhase.CLOSED
        assert yard.runtime.stopped == [server.id]


async def test_the_default_endpoint_cannot_be_removed(yard: Yard) -> None:
    async with yard.run() as engine:
        with pytest.raises(InvalidRequest, match="default"):
            await remove(yard, engine, "default")


async def test_a_running_rollout_keeps_its_endpoint_unless_it_is_pushed_aside(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        yard.answers.unready.add("sources/iris")
        rollout = await yard.roll(engine, yard.add_version(), endpoint="fraud")
        assert rollout.phase is RolloutPhase.PROBING
        with pytest.raises(RolloutInProgress) as refused:
            await remove(yard, engine, "fraud")
        assert refused.value.detail == {"rollout_id": rollout.id}
        await remove(yard, engine, "fraud", force=True)
        await yard.clock.advance(1)
        assert (await yard.store.get(Endpoint, "fraud")).phase is EndpointPhase.CLOSED
        assert (await yard.store.get(Rollout, rollout.id)).phase is RolloutPhase.ROLLED_BACK
        assert yard.runtime.running() == []


async def test_endpoints_that_are_removed_together_cost_one_reload(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "a", "b", "c")
        before = yard.proxy.reloads
        for name in ("a", "b", "c"):
            await engine.endpoints.remove(name, by=None, reason=None, force=False)
        await yard.clock.settle()
        assert await yard.proxy.endpoints() == ["default"]
        assert yard.proxy.reloads <= before + 2


async def test_the_next_router_goes_on_with_a_removal(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        rollout = await yard.roll(engine, yard.add_version(), endpoint="fraud")
        yard.proxy.busy[str((await yard.server(rollout.server_id)).address)] = 1
        assert await remove(yard, engine, "fraud") is EndpointPhase.CLOSING
    yard.proxy.busy.clear()
    async with yard.run():
        assert (await yard.store.get(Endpoint, "fraud")).phase is EndpointPhase.CLOSED
        assert await yard.proxy.endpoints() == ["default"]
        assert yard.runtime.running() == []


async def test_slots_that_went_before_it_was_written_down_stay_gone(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        yard.registry.fail_with(RegistryUnavailable("away"))
        assert await remove(yard, engine, "fraud") is EndpointPhase.CLOSED  # it had no alias to take off
        await add(engine, "churn")
        yard.registry.fail_with(None)
        await yard.roll(engine, yard.add_version(), endpoint="churn")
        yard.registry.fail_with(RegistryUnavailable("away"))
        assert await remove(yard, engine, "churn") is EndpointPhase.CLOSING
        assert await yard.proxy.endpoints() == ["default"]
        assert (await yard.store.get(Endpoint, "churn")).waiting_on == "away"
    async with yard.run():
        assert await yard.proxy.endpoints() == ["default"]
        yard.registry.fail_with(None)
        await yard.clock.advance(30)
        assert (await yard.store.get(Endpoint, "churn")).phase is EndpointPhase.CLOSED
        assert await yard.registry.aliases("Iris") == {}


async def test_an_alias_that_somebody_else_has_moved_since_stays(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await add(engine, "fraud")
        await yard.roll(engine, first, endpoint="fraud")
        await yard.registry.set_alias("Iris", "deployed-fraud", second)
        await remove(yard, engine, "fraud")
        assert await yard.registry.aliases("Iris") == {"deployed-fraud": second}


async def test_one_that_is_added_again_is_a_new_one(yard: Yard) -> None:
    first, second = yard.add_version(), yard.add_version()
    async with yard.run() as engine:
        await add(engine, "fraud", alias="live")
        for version in (first, second):
            await yard.roll(engine, version, endpoint="fraud")
        await remove(yard, engine, "fraud")
        await yard.clock.advance(1)
        (again,) = await add(engine, "fraud")
        assert again.alias == "deployed-fraud"
        await yard.roll(engine, second, endpoint="fraud")
        assert await served(yard, "fraud") == second
        with pytest.raises(Exception, match="no earlier server"):
            await engine.commands.roll_back(Caller(), endpoint="fraud")
        yard.runtime.end(yard.runtime.running()[0], 137)
        await yard.clock.advance(30)
        assert await served(yard, "fraud") == second
        assert len(yard.runtime.running()) == 1


async def test_a_training_whose_endpoint_went_meanwhile_succeeds_and_its_rollout_fails(yard: Yard) -> None:
    async with yard.run() as engine:
        await add(engine, "fraud")
        training_id = await engine.commands.start_training(
            TrainingRequest(trainer="iris", then_roll=True, endpoint="fraud"), Caller()
        )
        await yard.clock.settle()
        await remove(yard, engine, "fraud")
        training = await yard.store.get(Training, training_id)
        yard.registry.add_version("Iris", training.run_id, input_example=EXAMPLE)
        yard.runtime.end(training_id, 0)
        await yard.clock.settle()
        (rollout,) = await yard.store.find(Rollout)
        assert (rollout.phase, rollout.endpoint) == (RolloutPhase.FAILED, "fraud")
        assert rollout.failure is not None
        assert rollout.failure.code == "unknown_endpoint"


# --- what many cost --------------------------------------------------------------------------------------


async def test_a_look_at_a_hundred_endpoints_lists_the_workloads_about_once(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with yard.run() as engine:
        await add(engine, *(f"team-{number}" for number in range(100)))
        await yard.clock.settle()
        listed = 0
        list_owned = yard.runtime.list_owned

        async def count() -> object:
            nonlocal listed
            listed += 1
            return await list_owned()

        monkeypatch.setattr(yard.runtime, "list_owned", count)
        await yard.clock.advance(yard.policy.sweep_seconds)
        assert 1 <= listed <= 5


async def test_with_many_endpoints_servers_are_pinged_less_often_and_again_when_somebody_asks(
    yard: Yard,
) -> None:
    version = yard.add_version()
    async with yard.run() as engine:
        names = [f"team-{number}" for number in range(99)]
        await add(engine, *names)
        for name in names[:30]:
            await yard.roll(engine, version, endpoint=name)
        await yard.clock.advance(60)
        yard.answers.asked.clear()
        await yard.clock.advance(60)
        assert 30 * 60 / 10 * 0.5 <= len(yard.answers.asked) <= 30 * 60 / 10 * 1.5
        yard.answers.unready.add("sources/iris")
        await yard.clock.advance(6)  # less than the 10 s between two pings, and too long to believe the last
        assert not (await engine.health.serving(names[0])).healthy
