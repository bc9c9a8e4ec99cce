"""A standby takes over within 15 s of the first router's death, by its own clock and at whatever moment.

Nothing has to expire: kernel and database drop lock and lease with their holder. So it takes only a look.
"""

from pathlib import Path

import pytest

from router.core.errors import StandingBy
from router.engine.engine import LOCK_LOOK_SECONDS, START_RETRY_SECONDS, Engine
from tests.unit.engine.yard import Yard

PROMISED_SECONDS = 15.0
TICK = 0.1


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def take_over(yard: Yard, standby: Engine, lived: float) -> float:
    """Seconds from the first router's death, which comes after so long, to the standby's lead."""
    await yard.clock.advance(lived)
    with pytest.raises(StandingBy):
        standby.require_lead()
    died = yard.clock.now()
    yard.lock.held_by_another, yard.store.leads = False, True
    while not standby.leads:
        await yard.clock.advance(TICK)
        assert yard.clock.now() - died <= PROMISED_SECONDS
    return yard.clock.now() - died


@pytest.mark.parametrize("lived", [0.0, 0.3, 1.9, 7.4])
@pytest.mark.parametrize(
    ("lock", "longest"), [(True, LOCK_LOOK_SECONDS), (False, START_RETRY_SECONDS)], ids=["lock", "lease"]
)
async def test_a_standby_takes_over_soon_after_the_first_router_has_died(
    yard: Yard, lock: bool, longest: float, lived: float
) -> None:
    yard.lock.held_by_another, yard.store.leads = lock, False
    async with yard.run() as standby:
        assert await take_over(yard, standby, lived) <= longest + TICK


async def test_a_standby_that_gets_the_lock_before_the_lease_takes_over_in_time_too(yard: Yard) -> None:
    yard.lock.held_by_another, yard.store.leads = True, False
    async with yard.run() as standby:
        await yard.clock.advance(5)
        assert "lock" in standby.standing_by_because
        yard.lock.held_by_another = False
        await yard.clock.advance(LOCK_LOOK_SECONDS)
        assert "leads with this store" in standby.standing_by_because
        assert LOCK_LOOK_SECONDS + await take_over(yard, standby, 0) <= PROMISED_SECONDS
