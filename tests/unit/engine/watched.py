"""A rollout that is watched, and the requests that its watch goes by."""

from collections import Counter

from router.core.models import Rollout
from router.core.strategies import Strategy
from router.engine.engine import Engine
from tests.unit.engine.yard import Yard

CANARY = {"strategy": "canary", "steps": [20, 50, 100], "hold": 30, "bake": 60}
ENOUGH = 1500  # requests, so that both servers get what a step needs and more


async def roll_beside(yard: Yard, engine: Engine, before: int = 500, /, **plan: object) -> Rollout:
    """A second version, rolled out by this plan beside a first one that has answered so many requests."""
    first, second = yard.add_version(), yard.add_version()
    await yard.roll(engine, first)
    ask(yard, before)
    return await yard.roll(engine, second, plan=Strategy.model_validate(plan))


def ask(yard: Yard, requests: int) -> Counter[str]:
    """How many each address has answered."""
    return Counter(yard.proxy.answer("default") for _ in range(requests))


async def ask_for_a_while(yard: Yard) -> None:
    """One moment is not enough to convict a server."""
    for _ in range(12):
        ask(yard, 100)
        await yard.clock.advance(0.25)


async def let_misbehave(yard: Yard, rollout: Rollout, status: int = 200, seconds: float = 0.001) -> None:
    address = (await yard.server(rollout.server_id)).address
    assert address is not None
    yard.proxy.behaviour[address] = status, seconds


async def stored(engine: Engine, rollout: Rollout) -> Rollout:
    return await engine.store.get(Rollout, rollout.id)
