"""What every store promises: the memory driver, SQLite, and PostgreSQL."""

from functools import partial
from math import inf, isnan, nan

import anyio
import pytest
from anyio.lowlevel import checkpoint

from router.core.errors import (
    IdempotencyKeyReused,
    StaleRecord,
    UnknownRecord,
)
from router.core.models import (
    Endpoint,
    Event,
    Failure,
    Record,
    RollIntent,
    Rollout,
    RolloutPhase,
    Server,
    Training,
    TrainingPhase,
)
from router.core.specs import Resources
from router.stores.base import Claim, Insert, Store, Update
from tests.races import race
from tests.records import make_rollout, make_server, make_training, opened, told

pytestmark = pytest.mark.anyio


async def test_a_record_comes_back_exactly_as_it_was_written(store: Store) -> None:
    training = make_training(
        "trn_1",
        created_at=1_763_700_000.123456,
        env={"GREETING": "grüß dich\u2028 🚂"},
        parameters={"depth": "3", "unset": None},
        resources=Resources(cpus=1.5, memory=2**30, required=False),
        failure=Failure(code="trainer_failed", message="exit code 1"),
        warnings=("one", "two"),
        run_parameters={"alpha": "0.1"},
        logs_tail="line\x00with a NUL\r\n" + "x" * 100_000,
        roll=RollIntent(rollout_id="rol_1", wait_ready_seconds=30),
    )
    rollout = make_rollout("rol_1", evidence={"probe": {"rows": [1, 2.5, None, "a"], "ok": True}})
    server = make_server("srv_1", address="127.0.0.1:4001", warm_until=12.5)
    endpoint = Endpoint(id="default", created_at=1, updated_at=2, alias_model="m", alias_version=3)
    await store.apply(*(opened(record) for record in (training, rollout, server, endpoint)))
    assert await store.get(Training, "trn_1") == training
    assert await store.get(Rollout, "rol_1") == rollout
    assert await store.get(Server, "srv_1") == server
    assert await store.get(Endpoint, "default") == endpoint


async def test_metrics_that_are_no_numbers_survive(store: Store) -> None:
    await store.apply(opened(make_training("trn_1", metrics={"loss": nan, "worst": inf, "best": -inf})))
    metrics = (await store.get(Training, "trn_1")).metrics
    assert metrics is not None
    assert isnan(metrics["loss"])
    assert (metrics["worst"], metrics["best"]) == (inf, -inf)


@pytest.mark.parametrize(
    "record_id", ["trn_2", "", "../trn_1", "trn_1\x00", "trn_1\n", "\ud800", "trn_\uff11"]
)
async def test_an_unknown_id_is_named_as_that(store: Store, record_id: str) -> None:
    await store.apply(opened(make_training("trn_1")))
    with pytest.raises(UnknownRecord):
        await store.get(Training, record_id)


async def test_an_id_of_another_kind_is_unknown(store: Store) -> None:
    await store.apply(opened(make_training("trn_1")))
    with pytest.raises(UnknownRecord, match="rollout 'trn_1'"):
        await store.get(Rollout, "trn_1")


async def test_an_update_of_what_was_read_is_written_with_its_event(store: Store) -> None:
    before = make_training("trn_1")
    after = before.evolve(5.0, phase=TrainingPhase.STARTING, run_id="abc")
    await store.apply(opened(before))
    await store.apply(Update(before, after, told("trn_1", "starting")))
    assert await store.get(Training, "trn_1") == after
    assert [event.text for event in await store.events("trn_1")] == ["opened", "starting"]


async def test_an_update_of_a_record_that_has_moved_on_changes_nothing(store: Store) -> None:
    before = make_training("trn_1")
    moved = before.evolve(5.0, phase=TrainingPhase.STARTING)
    await store.apply(opened(before), Update(before, moved))
    late = before.evolve(6.0, phase=TrainingPhase.CANCELLED)
    with pytest.raises(StaleRecord, match="trn_1 is no longer queued"):
        await store.apply(Update(before, late, told("trn_1", "cancelled")))
    assert await store.get(Training, "trn_1") == moved
    assert [event.text for event in await store.events()] == ["opened"]


async def test_the_phase_guards_even_where_the_revision_agrees(store: Store) -> None:
    before = make_training("trn_1")
    await store.apply(opened(before))
    guessed = before.model_copy(update={"phase": TrainingPhase.RUNNING})
    with pytest.raises(StaleRecord):
        await store.apply(Update(guessed, guessed.evolve(5.0)))


async def test_the_revision_guards_even_where_the_phase_agrees(store: Store) -> None:
    before = make_training("trn_1")
    await store.apply(opened(before), Update(before, before.evolve(5.0, cancel_requested=True)))
    with pytest.raises(StaleRecord):
        await store.apply(Update(before, before.evolve(6.0, run_id="abc")))


async def test_a_record_that_was_never_inserted_cannot_be_updated(store: Store) -> None:
    ghost = make_server("srv_1")
    with pytest.raises(StaleRecord):
        await store.apply(Update(ghost, ghost.evolve(5.0)))


async def test_a_second_insert_of_an_id_is_refused_and_the_first_stays(store: Store) -> None:
    first = make_training("trn_1", image="first")
    await store.apply(opened(first))
    with pytest.raises(StaleRecord, match="trn_1 exists already"):
        await store.apply(opened(make_training("trn_1", image="second")))
    assert await store.get(Training, "trn_1") == first


async def test_a_change_that_does_not_follow_from_what_was_read_is_a_mistake(store: Store) -> None:
    one, other = make_training("trn_1"), make_training("trn_2")
    await store.apply(opened(one), opened(other))
    for after in (one, one.model_copy(update={"run_id": "x"}), other.evolve(5.0)):
        with pytest.raises(ValueError, match="does not follow"):
            await store.apply(Update(one, after))


async def test_of_many_that_race_for_one_record_exactly_one_wins(store: Store) -> None:
    before = make_training("trn_1")
    await store.apply(opened(before))

    def attempt(number: int) -> Update[Record]:
        return Update(
            before,
            before.evolve(5.0, phase=TrainingPhase.STARTING, run_id=f"run {number}"),
            told("trn_1", f"won by {number}"),
        )

    outcomes = await race([partial(store.apply, attempt(number)) for number in range(24)])
    winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert all(isinstance(outcome, StaleRecord) for outcome in outcomes if outcome is not None)
    assert (await store.get(Training, "trn_1")).run_id == f"run {winners[0]}"
    assert [event.text for event in await store.events()] == ["opened", f"won by {winners[0]}"]


async def test_nobody_loses_a_count_that_many_raise_at_once(store: Store) -> None:
    await store.apply(opened(Endpoint(id="default", created_at=1, updated_at=1, alias_version=0)))

    async def raise_once() -> None:
        while True:
            before = await store.get(Endpoint, "default")
            after = before.evolve(2.0, alias_version=(before.alias_version or 0) + 1)
            try:
                await store.apply(Update(before, after, told("default", str(after.alias_version))))
            except StaleRecord:
                continue
            return

    assert await race([raise_once] * 12) == [None] * 12
    assert (await store.get(Endpoint, "default")).alias_version == 12
    texts = [event.text for event in await store.events("default")]
    assert texts == ["opened", *(str(number) for number in range(1, 13))]


async def test_changes_that_cross_one_another_do_not_block(store: Store) -> None:
    one, other = make_training("trn_1"), make_training("trn_2")
    await store.apply(opened(one), opened(other))
    there = (Update(one, one.evolve(2.0)), Update(other, other.evolve(2.0)))
    outcomes = await race([partial(store.apply, *changes) for changes in (there, there[::-1]) * 6])
    assert sorted(str(outcome is None) for outcome in outcomes) == ["False"] * 11 + ["True"]
    assert all(outcome is None or isinstance(outcome, StaleRecord) for outcome in outcomes)


async def test_changes_are_made_together_or_not_at_all(store: Store) -> None:
    known, server = make_training("trn_1"), make_server("srv_1")
    await store.apply(opened(known), opened(server))
    await store.apply(Update(server, server.evolve(3.0)))
    with pytest.raises(StaleRecord):
        await store.apply(
            opened(make_rollout("rol_1")),
            Claim("key", "fingerprint", "rol_1", 2.0),
            Update(known, known.evolve(4.0, phase=TrainingPhase.FAILED), told("trn_1", "failed")),
            Update(server, server.evolve(4.0), told("srv_1", "never")),
        )
    assert await store.get(Training, "trn_1") == known
    assert await store.find(Rollout) == []
    assert await store.claimed("key") is None
    assert [event.text for event in await store.events()] == ["opened", "opened"]


async def test_several_updates_of_one_record_count_in_their_order(store: Store) -> None:
    first = make_training("trn_1")
    second = first.evolve(2.0, phase=TrainingPhase.STARTING)
    third = second.evolve(3.0, phase=TrainingPhase.RUNNING)
    await store.apply(opened(first), Update(first, second), Update(second, third))
    assert await store.get(Training, "trn_1") == third


async def test_nothing_to_apply_is_fine(store: Store) -> None:
    await store.apply()
    assert await store.events() == []


async def test_a_claim_is_remembered_with_the_record_it_came_with(store: Store) -> None:
    claim = Claim("a key, with ümlaut", "POST /admin/roll 3f9a", "rol_1", 12.25)
    await store.apply(opened(make_rollout("rol_1")), claim)
    assert await store.claimed(claim.key) == claim
    assert await store.claimed("another") is None


async def test_a_key_can_be_claimed_once_and_what_came_with_the_second_is_not_made(store: Store) -> None:
    first = Claim("key", "one", "trn_1", 1.0)
    await store.apply(opened(make_training("trn_1")), first)
    with pytest.raises(IdempotencyKeyReused):
        await store.apply(opened(make_training("trn_2")), Claim("key", "two", "trn_2", 2.0))
    assert await store.claimed("key") == first
    assert [training.id for training in await store.find(Training)] == ["trn_1"]


async def test_of_many_that_claim_one_key_at_once_exactly_one_does(store: Store) -> None:
    claims = [Claim("key", "same", f"trn_{number}", 1.0) for number in range(12)]
    outcomes = await race(
        [partial(store.apply, opened(make_training(claim.record_id)), claim) for claim in claims]
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, IdempotencyKeyReused) for outcome in outcomes) == 11
    winner = await store.claimed("key")
    assert winner is not None
    assert [training.id for training in await store.find(Training)] == [winner.record_id]


async def test_records_are_found_by_time_and_ties_by_order_of_insertion(store: Store) -> None:
    times = {"trn_b": 2.0, "trn_c": 1.0, "trn_a": 2.0, "trn_d": 3.0}
    for record_id, time in times.items():
        await store.apply(opened(make_training(record_id, created_at=time)))
    oldest_first = ["trn_c", "trn_b", "trn_a", "trn_d"]
    assert [found.id for found in await store.find(Training)] == oldest_first
    assert [found.id for found in await store.find(Training, newest_first=True)] == oldest_first[::-1]
    assert [found.id for found in await store.find(Training, newest_first=True, limit=2)] == [
        "trn_d",
        "trn_a",
    ]
    assert await store.find(Training, limit=0) == []


async def test_records_are_found_by_phase_and_by_endpoint(store: Store) -> None:
    ended = {"phase": RolloutPhase.SUCCEEDED}
    await store.apply(
        opened(make_rollout("rol_1", **ended)),
        opened(make_rollout("rol_2", phase=RolloutPhase.PROBING)),
        opened(make_rollout("rol_3", endpoint="other", phase=RolloutPhase.PROBING)),
        opened(make_rollout("rol_4", endpoint="other", **ended)),
    )

    async def ids(**filters: object) -> list[str]:
        return [found.id for found in await store.find(Rollout, **filters)]  # type: ignore[arg-type]

    assert await ids(phases=[RolloutPhase.PROBING]) == ["rol_2", "rol_3"]
    assert await ids(phases={"probing", "succeeded"}, endpoint="other") == ["rol_3", "rol_4"]
    assert await ids(endpoint="default", newest_first=True, limit=1) == ["rol_2"]
    assert await ids(endpoint="nowhere") == []
    assert await ids(phases=[]) == []


async def test_records_are_found_page_by_page_from_where_the_last_page_ended(store: Store) -> None:
    for number, (at, endpoint) in enumerate([(1.0, "a"), (2.0, "b"), (2.0, "a"), (2.0, "a"), (3.0, "a")]):
        ended = make_rollout(f"rol_{number}", created_at=at, endpoint=endpoint, phase=RolloutPhase.FAILED)
        await store.apply(opened(ended))
    pages, last = [], None
    while page := await store.find(Rollout, endpoint="a", newest_first=True, older_than=last, limit=2):
        pages.append([record.id for record in page])
        last = page[-1].id
    assert pages == [["rol_4", "rol_3"], ["rol_2", "rol_0"]]
    assert await store.find(Rollout, older_than="rol_9") == []


async def test_only_rollouts_and_servers_are_found_by_endpoint(store: Store) -> None:
    await store.apply(opened(make_server("srv_1")))
    assert [server.id for server in await store.find(Server, endpoint="default")] == ["srv_1"]
    with pytest.raises(ValueError, match="belongs to no endpoint"):
        await store.find(Training, endpoint="default")


async def test_events_come_oldest_first_and_the_newest_of_them(store: Store) -> None:
    before = make_training("trn_1")
    await store.apply(opened(before), opened(make_training("trn_2")))
    for number in range(1, 6):
        after = before.evolve(float(number))
        await store.apply(Update(before, after, told("trn_1", str(number))))
        before = after
    assert [event.text for event in await store.events("trn_1", limit=3)] == ["3", "4", "5"]
    assert [event.subject for event in await store.events(limit=7)][:2] == ["trn_1", "trn_2"]
    assert await store.events("trn_3") == []
    assert await store.events(limit=0) == []


async def test_an_event_comes_back_exactly_as_it_was_written(store: Store) -> None:
    event = Event(
        at=1_763_700_000.25,
        subject="trn_1",
        kind="phase",
        text="fehlgeschlagen\x00 🚂",
        data={"phase": "failed", "rows": [1, None]},
    )
    await store.apply(Insert(make_training("trn_1"), event))
    assert await store.events() == [event]


async def test_a_store_that_works_passes_its_check(store: Store) -> None:
    await store.check()
    await store.check()


async def test_a_caller_that_gives_up_leaves_its_change_whole_or_not_begun(store: Store) -> None:
    async def begin(number: int) -> None:
        await store.apply(
            opened(make_training(f"trn_{number}")), Claim(str(number), "same", f"trn_{number}", 1.0)
        )

    for number in range(0, 40, 4):
        async with anyio.create_task_group() as group:
            for each in range(4):
                group.start_soon(begin, number + each)
            for _ in range(number % 7):
                await checkpoint()
            group.cancel_scope.cancel()
    made = {training.id for training in await store.find(Training)}
    assert {event.subject for event in await store.events()} == made
    claimed = [claim.record_id for n in range(40) if (claim := await store.claimed(str(n))) is not None]
    assert set(claimed) == made
