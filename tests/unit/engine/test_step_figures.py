"""Each step of a rollout keeps what was counted, whoever ends it: a person, a rollback, the next one."""

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.core.errors import ProxyUnavailable
from router.core.models import Rollout, RolloutPhase, StepRecord
from router.core.verdicts import Verdict
from router.engine.commands import Caller
from router.engine.engine import Engine
from router.proxies.base import Sample
from tests.unit.engine.watched import ask, let_misbehave, roll_beside, stored
from tests.unit.engine.yard import Yard

CANARY = {"strategy": "canary", "steps": [20, 50], "hold": 600, "bake": 600}
BEFORE = 500  # requests of the first version alone

End = Callable[[Yard, Engine, Rollout], Awaitable[object]]


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


async def check_counted(yard: Yard, rollout: Rollout, step: StepRecord, answered: Counter[str]) -> None:
    """`answered`: by address, during the step."""
    before, candidate = [
        answered[str((await yard.server(side)).address)]
        for side in (yard.runtime.launched[0].owner, rollout.server_id)
    ]
    assert before + candidate == answered.total()
    assert step.until is not None
    assert step.finding is not None
    assert step.finding.step_active.requests == before
    assert step.finding.step_candidate.requests == candidate


async def abort(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    await engine.steering.abort(rollout.id)


async def promote(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    await engine.steering.promote(rollout.id)


async def set_share(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    await engine.steering.set_weight(rollout.id, 70)


async def roll_back(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    await engine.commands.roll_back(Caller())


async def roll_on(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    await yard.roll(engine, yard.add_version())


async def hang_at_the_promotion(yard: Yard, engine: Engine, rollout: Rollout) -> None:
    yard.answers.unready.add(rollout.serve_image)
    await engine.steering.promote(rollout.id)
    await yard.clock.advance(5)


@pytest.mark.parametrize("end", [abort, promote, set_share, roll_back, hang_at_the_promotion])
async def test_a_step_that_is_ended_by_hand_keeps_what_was_counted_up_to_then(yard: Yard, end: End) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        answered = ask(yard, 1000)
        await yard.clock.advance(7)
        answered += ask(yard, 1000)  # after the last look
        await end(yard, engine, rollout)
        await yard.clock.settle()
        step = (await stored(engine, rollout)).steps[0]
        await check_counted(yard, rollout, step, answered)
        assert step.until is not None
        assert 7 <= step.until - step.since < 10
        assert step.finding is not None
        assert step.finding.verdict is Verdict.PASSED
        assert step.finding.candidate.p99_ms == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("end", [roll_back, roll_on])
async def test_a_bake_that_is_cut_short_keeps_what_was_counted_up_to_then(yard: Yard, end: End) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, bake=600)
        await let_misbehave(yard, rollout, status=500)
        answered = ask(yard, 60)
        await end(yard, engine, rollout)
        await yard.clock.settle()
        ask(yard, 200)
        await yard.clock.advance(30)
        ended = await stored(engine, rollout)
        assert ended.phase.terminal
        await check_counted(yard, rollout, ended.steps[-1], answered)
        assert ended.steps[-1].finding is not None
        assert ended.steps[-1].finding.candidate.failures == 60
        assert ended.steps[-1].finding.active.requests == BEFORE


async def test_a_step_that_is_ended_while_nothing_can_be_counted_keeps_what_was_seen_before(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(cursor: str | None) -> tuple[list[Sample], str]:
        raise ProxyUnavailable

    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        answered = ask(yard, 1000)
        await yard.clock.advance(1)
        monkeypatch.setattr(yard.proxy, "samples", refuse)
        await engine.steering.abort(rollout.id)
        await yard.clock.settle()
        ended = await stored(engine, rollout)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        await check_counted(yard, ended, ended.steps[0], answered)


async def test_shares_that_are_set_one_after_another_each_keep_their_own_figures(yard: Yard) -> None:
    async with yard.run() as engine:
        rollout = await roll_beside(yard, engine, **CANARY)
        answered = []
        for weight, requests in ((50.0, 1000), (100.0, 500), (25.0, 400)):
            answered.append(ask(yard, requests))
            await engine.steering.set_weight(rollout.id, weight)
            await yard.clock.settle()
        answered.append(ask(yard, 800))
        await engine.steering.abort(rollout.id)
        await yard.clock.settle()
        ended = await stored(engine, rollout)
        assert ended.phase is RolloutPhase.ROLLED_BACK
        assert [step.weight for step in ended.steps] == [20, 50, 100, 25]
        for step, counts in zip(ended.steps, answered, strict=True):
            await check_counted(yard, rollout, step, counts)
