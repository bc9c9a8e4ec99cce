"""What every store promises of endpoints: one rollout at a time each, and none on one that goes."""

from functools import partial

import pytest

from router.core.errors import (
    RolloutInProgress,
    StaleRecord,
    UnknownEndpoint,
    UnknownRecord,
)
from router.core.models import (
    Endpoint,
    EndpointPhase,
    Rollout,
    RolloutPhase,
    Training,
)
from router.stores.base import Store, Update
from tests.races import race
from tests.records import make_endpoint, make_rollout, make_training, opened

pytestmark = pytest.mark.anyio


async def test_a_second_rollout_of_an_endpoint_is_refused_by_the_name_of_the_first(store: Store) -> None:
    await store.apply(opened(make_rollout("rol_1")))
    with pytest.raises(RolloutInProgress, match="rol_1") as refusal:
        await store.apply(opened(make_training("trn_1")), opened(make_rollout("rol_2")))
    assert refusal.value.detail == {"rollout_id": "rol_1"}
    assert await store.find(Training) == []
    assert [rollout.id for rollout in await store.find(Rollout)] == ["rol_1"]


async def test_rollouts_of_two_endpoints_go_on_side_by_side(store: Store) -> None:
    await store.apply(opened(make_rollout("rol_1")), opened(make_rollout("rol_2", endpoint="other")))
    assert len(await store.find(Rollout)) == 2


@pytest.mark.parametrize("phase", [phase for phase in RolloutPhase if phase.terminal])
async def test_a_rollout_that_has_ended_makes_way(store: Store, phase: RolloutPhase) -> None:
    first = make_rollout("rol_1")
    await store.apply(opened(first), Update(first, first.evolve(2.0, phase=phase)))
    await store.apply(opened(make_rollout("rol_2")))
    assert (await store.get(Rollout, "rol_2")).holds_endpoint


async def test_a_rollback_takes_the_endpoint_in_the_change_that_frees_it(store: Store) -> None:
    first = make_rollout("rol_1")
    rollback = make_rollout("rol_2", kind="rollback", preempts="rol_1")
    pushed_aside = first.evolve(2.0, preempted=True, phase=RolloutPhase.ABORTING)
    await store.apply(opened(first))
    with pytest.raises(RolloutInProgress):
        await store.apply(opened(rollback), Update(first, pushed_aside))
    await store.apply(Update(first, pushed_aside), opened(rollback))
    holders = [rollout.id for rollout in await store.find(Rollout) if rollout.holds_endpoint]
    assert holders == ["rol_2"]


async def test_a_rollout_cannot_take_its_endpoint_back_from_another(store: Store) -> None:
    first = make_rollout("rol_1", preempted=True)
    await store.apply(opened(first), opened(make_rollout("rol_2")))
    with pytest.raises(RolloutInProgress) as refusal:
        await store.apply(Update(first, first.evolve(2.0, preempted=False)))
    assert refusal.value.detail == {"rollout_id": "rol_2"}


async def test_a_rollout_that_was_pushed_aside_unawares_has_moved_and_is_not_refused(store: Store) -> None:
    first = make_rollout("rol_1")
    await store.apply(opened(first))
    rollback = make_rollout("rol_2", kind="rollback", preempts="rol_1")
    await store.apply(Update(first, first.evolve(2.0, preempted=True)), opened(rollback))
    with pytest.raises(StaleRecord):
        await store.apply(Update(first, first.evolve(3.0, phase=RolloutPhase.LAUNCHING)))


@pytest.mark.parametrize("phase", [EndpointPhase.CLOSING, EndpointPhase.CLOSED])
async def test_no_rollout_begins_on_an_endpoint_that_is_going_or_gone(
    store: Store, phase: EndpointPhase
) -> None:
    await store.apply(opened(make_endpoint("fraud", phase=phase)))
    with pytest.raises(UnknownEndpoint, match="fraud"):
        await store.apply(opened(make_rollout("rol_1", endpoint="fraud")))
    with pytest.raises(UnknownRecord):
        await store.get(Rollout, "rol_1")
    await store.apply(opened(make_rollout("rol_2", endpoint="fraud", phase=RolloutPhase.FAILED)))


async def test_an_endpoint_that_a_rollout_holds_is_not_closed(store: Store) -> None:
    endpoint, rollout = make_endpoint("fraud"), make_rollout("rol_1", endpoint="fraud")
    await store.apply(opened(endpoint), opened(rollout))
    closing = Update(endpoint, endpoint.evolve(2, phase=EndpointPhase.CLOSING))
    with pytest.raises(RolloutInProgress) as refused:
        await store.apply(closing)
    assert refused.value.detail == {"rollout_id": "rol_1"}
    assert await store.get(Endpoint, "fraud") == endpoint
    await store.apply(Update(rollout, rollout.evolve(2, preempted=True)), closing)
    assert (await store.get(Endpoint, "fraud")).phase is EndpointPhase.CLOSING


async def test_of_many_rollouts_that_race_for_an_endpoint_exactly_one_begins(store: Store) -> None:
    rollouts = [make_rollout(f"rol_{number}") for number in range(16)]
    outcomes = await race([partial(store.apply, opened(rollout)) for rollout in rollouts])
    winners = [r.id for r, outcome in zip(rollouts, outcomes, strict=True) if outcome is None]
    assert len(winners) == 1
    for outcome in outcomes:
        if outcome is not None:
            assert isinstance(outcome, RolloutInProgress)
            assert outcome.detail == {"rollout_id": winners[0]}
