"""That the bets are fair: by enumeration, not by luck."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.bets import (
    MOST_PER_ROUND,
    MOST_WEALTH,
    ODDS,
    Bets,
    bet_on_both,
    bet_on_both_with_tolerance,
    bet_on_one,
    bound_share,
    spread_bad,
)

ALMOST = 1e-9
servers = st.integers(min_value=1, max_value=12)


def chance_of(count: int, of: int, share: float) -> float:
    return math.comb(of, count) * share**count * (1 - share) ** (of - count)


@given(ours=servers, theirs=servers, data=st.data())
def test_a_bet_on_both_multiplies_by_one_in_the_mean_if_the_split_was_chance(
    ours: int, theirs: int, data: st.DataObject
) -> None:
    total = data.draw(st.integers(min_value=0, max_value=ours + theirs))
    fewest = max(0, total - theirs)
    means = [0.0] * len(ODDS)
    for bad, chance in enumerate(spread_bad(total, ours, theirs), start=fewest):
        for number, gain in enumerate(bet_on_both((bad, ours), (total - bad, theirs))):
            means[number] += chance * math.exp(gain)
    assert means == pytest.approx([1.0] * len(ODDS))


@given(ours=servers, theirs=servers, own_share=st.sampled_from([0, 0.002, 0.05, 0.4]), data=st.data())
def test_with_a_tolerance_it_does_so_at_most_though_the_candidate_fails_that_much_more(
    ours: int, theirs: int, own_share: float, data: st.DataObject
) -> None:
    total = data.draw(st.integers(min_value=0, max_value=ours + theirs))
    fewest = max(0, total - theirs)
    means = [0.0] * len(ODDS)
    for bad, chance in enumerate(spread_bad(total, ours, theirs), start=fewest):
        for own in range(ours - bad + 1):
            weight = chance * chance_of(own, ours - bad, own_share)
            gains = bet_on_both_with_tolerance((bad + own, ours), (total - bad, theirs), own_share)
            for number, gain in enumerate(gains):
                means[number] += weight * math.exp(gain)
    assert max(means) <= 1 + ALMOST


@given(answers=servers, limit=st.sampled_from([0.001, 0.05, 0.5, 1.0]), kept=st.floats(0, 1))
def test_a_bet_on_one_does_so_at_most_if_the_limit_is_kept(answers: int, limit: float, kept: float) -> None:
    share = limit * kept
    for number in range(len(ODDS)):
        gains = (bet_on_one((bad, answers), limit)[number] for bad in range(answers + 1))
        mean = sum(chance_of(bad, answers, share) * math.exp(gain) for bad, gain in enumerate(gains))
        assert mean <= 1 + ALMOST


@given(ours=st.integers(60, 400), theirs=st.integers(60, 4000), data=st.data())
def test_a_great_batch_is_bet_on_by_a_bound_that_promises_no_more(
    ours: int, theirs: int, data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, min(ours, 30)))
    others = data.draw(st.integers(0, 30))
    exact = bet_on_both((bad, ours), (others, theirs))
    bound = bet_on_both_with_tolerance((bad, ours), (others, theirs), 0)
    assert all(low <= high + ALMOST for low, high in zip(bound, exact, strict=True))
    assert all(map(math.isfinite, bet_on_both((ours, ours), (theirs, theirs))))


def test_the_wealth_of_a_fair_game_is_one_in_the_mean_after_every_round() -> None:
    rounds = 8
    won, lost = [math.log(1.5)] * len(ODDS), [math.log(0.5)] * len(ODDS)
    ends = []
    for path in itertools.product((won, lost), repeat=rounds):
        bets = Bets()
        for gains in path:
            bets = bets.play(gains)
        ends.append(bets.e_value)
    assert sum(ends) / len(ends) == pytest.approx(1)


def test_trouble_after_a_long_good_time_is_seen_by_fresh_stakes() -> None:
    bets = Bets()
    for _ in range(10_000):
        bets = bets.play([-5.0] * len(ODDS))
    assert bets.peak < 1.5
    for _ in range(20):
        bets = bets.play([1.5] * len(ODDS))
    assert bets.e_value > 1000


def test_no_batch_convicts_by_itself_and_no_wealth_leaves_the_numbers() -> None:
    bets = Bets().play([1e9] * len(ODDS))
    assert bets.e_value <= math.exp(MOST_PER_ROUND) + 1
    for _ in range(1000):
        bets = bets.play([1e9] * len(ODDS))
    assert bets.peak == bets.e_value == MOST_WEALTH
    for _ in range(1000):
        bets = bets.play([-1e9] * len(ODDS))
    assert 0 <= bets.e_value < 1
    assert bets.peak == MOST_WEALTH


@pytest.mark.parametrize("answers", [1, 7, 60])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 0.5, 0.97])
def test_a_bound_is_below_the_true_share_no_more_often_than_it_may_be(answers: int, share: float) -> None:
    risk = 0.05
    below = sum(
        chance_of(bad, answers, share)
        for bad in range(answers + 1)
        if bound_share(bad, answers, risk) < share - ALMOST
    )
    assert below <= risk


def test_without_an_answer_the_bound_is_all() -> None:
    assert bound_share(0, 0, 0.001) == 1
    assert bet_on_one((5, 5), 1.0) == (0.0,) * len(ODDS)
