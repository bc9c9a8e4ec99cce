"""Evidence that grows fairly: bets on which server the next bad answer comes from.

Whoever bets against a true hypothesis at fair odds multiplies a stake of 1 by 1/alpha with probability alpha
at most, over all time (Ville's inequality). So the wealth may be looked at after every request, and the
moment at which one stops does not matter (Ramdas, Grunwald, Vovk, Shafer, "Game-theoretic statistics and
safe anytime-valid inference", Statistical Science 2023).

While both servers get traffic, the bets are conditional on how many answers of a batch were bad, as in
Fisher's exact test: the proxy chose at random who got which request, so a candidate that is as good has each
bad one with the probability of its share of the batch, however bad the moment was for both. Turner, Ly and
Grunwald ("Generic E-variables for exact sequential k-sample tests that allow for optional stopping", 2024)
bet on two streams in the same batches, with a rate that is the same within one.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

ODDS = (1.5, 3.0, 10.0, 100.0)  # how much worse the candidate may be: a bet on each, with equal stakes
FIRST_STAKE = 0.6  # placed at once; the rest round by round, so that late trouble finds fresh money
MOST_PER_ROUND = math.log(20)  # so that one bad moment of one server convicts nobody
MOST_WEALTH = 1e300


class Bets(BaseModel):
    """One hypothesis, bet against at all the odds.

    A long good time ruins every bet placed at its start. Therefore stakes are placed in every round, the
    k-th a part of 1/k(k-1): the sum of all is 1, so the wealth is still a fair game's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounds: int = 0
    wealth: tuple[float, ...] = (0.0,) * len(ODDS)
    peak: float = 1.0  # the greatest e-value so far: 1/peak is a p-value that is valid at any time

    @property
    def e_value(self) -> float:
        unplaced = (1 - FIRST_STAKE) / self.rounds if self.rounds else 1.0
        return min(MOST_WEALTH, unplaced + sum(self.wealth) / len(ODDS))

    def play(self, gains: Sequence[float]) -> "Bets":
        """`gains`: natural logarithm of what each bet is multiplied with."""
        rounds = self.rounds + 1
        stake = FIRST_STAKE if rounds == 1 else (1 - FIRST_STAKE) / (rounds * (rounds - 1))
        wealth = tuple(
            min(MOST_WEALTH, (held + stake) * math.exp(min(gain, MOST_PER_ROUND)))
            for held, gain in zip(self.wealth, gains, strict=True)
        )
        after = Bets.model_construct(rounds=rounds, wealth=wealth, peak=self.peak)
        return after.model_copy(update={"peak": e_value}) if (e_value := after.e_value) > self.peak else after


def bet_on_both(
    candidate: tuple[int, int], active: tuple[int, int], own_share: float = 0.0
) -> tuple[float, ...]:
    """Gains at each of the odds from one batch, each server's as (bad answers, answers).

    Hypothesis: within the batch it was chance which server got which request, and of the candidate's own
    accord, on top of what is common to both, at most `own_share` of its answers are bad.

    Given the number of bad answers, the candidate's are hypergeometric; the odds to the power of them, a
    convex function, have at most the mean that they have if drawn with replacement (Hoeffding 1963), which is
    `blend` to the power of all bad ones. A bad answer of the candidate's own multiplies the bet by at most
    `odds / blend`, which `own_share` pays for beforehand.
    """
    bad, answers = candidate
    share = answers / (answers + active[1])
    gains = []
    for odds in ODDS:
        blend = 1 + share * (odds - 1)
        toll = answers * math.log1p(own_share * (odds / blend - 1))
        gains.append(bad * math.log(odds / blend) - active[0] * math.log(blend) - toll)
    return tuple(gains)


def bet_on_one(candidate: tuple[int, int], limit: float) -> tuple[float, ...]:
    """Gains at each of the odds. Hypothesis: each answer, whatever came before, is bad with probability
    `limit` at most."""
    bad, answers = candidate
    if limit >= 1:
        return (0.0,) * len(ODDS)
    gains = []
    for odds in ODDS:
        blend = 1 + limit * (odds - 1)
        gains.append(bad * math.log(odds / blend) - (answers - bad) * math.log(blend))
    return tuple(gains)


def bound_share(bad: int, answers: int, risk: float) -> float:
    """Above the true share but for this risk: Chernoff's, answers * KL(bad / answers, p) = -log(risk)."""
    if bad >= answers:
        return 1.0
    seen = bad / answers
    low, high = seen, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if answers * divergence(seen, middle) < -math.log(risk):
            low = middle
        else:
            high = middle
    return high


def divergence(p: float, q: float) -> float:
    """Kullback-Leibler's, of one yes-or-no answer, for 0 <= p < 1 and p <= q <= 1."""
    if q >= 1:
        return math.inf
    return (p * math.log(p / q) if p else 0.0) + (1 - p) * math.log((1 - p) / (1 - q))
