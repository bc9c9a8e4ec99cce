"""What is counted of the answers, and how near the percentiles are."""

import math
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.tallies import (
    BINS_PER_DOUBLING,
    LAST_BIN,
    SHORTEST_SECONDS,
    Tally,
    bin_of,
    sort_answers,
    tally,
    upper_edge,
)
from router.proxies.base import Sample

ACTIVE, CANDIDATE = "127.0.0.1:1", "127.0.0.1:2"


def sample(address: str = ACTIVE, status: int = 200, seconds: float = 0.01) -> Sample:
    return Sample(1.0, "default", address, status, seconds)


samples = st.lists(
    st.builds(
        sample,
        address=st.sampled_from([ACTIVE, CANDIDATE, "127.0.0.1:3"]),
        status=st.sampled_from([200, 400, 499, 500, 502, 504]),
        seconds=st.floats(min_value=0, max_value=1e4),
    )
)


@given(samples)
def test_answers_are_sorted_by_the_server_that_gave_them(drawn: list[Sample]) -> None:
    window = sort_answers(drawn, ACTIVE, CANDIDATE)
    for side, address in ((window.active, ACTIVE), (window.candidate, CANDIDATE)):
        assert side.requests == sum(each.address == address for each in drawn)
        assert side.failures == sum(
            each.address == address and each.status in {400, 500, 502, 504} for each in drawn
        )
        assert sum(side.latencies.values()) == side.answers


@given(samples, samples)
def test_tallies_add_up_and_a_step_is_what_came_after_its_begin(
    first: list[Sample], second: list[Sample]
) -> None:
    whole = sort_answers([*first, *second], ACTIVE, CANDIDATE)
    assert sort_answers(first, ACTIVE, CANDIDATE) + sort_answers(second, ACTIVE, CANDIDATE) == whole
    assert whole - sort_answers(first, ACTIVE, CANDIDATE) == sort_answers(second, ACTIVE, CANDIDATE)


@given(st.lists(st.floats(min_value=2 * SHORTEST_SECONDS, max_value=1000), min_size=1))
def test_a_percentile_is_never_too_low_and_at_most_one_bin_too_high(seconds: list[float]) -> None:
    counted = tally(sample(seconds=each) for each in seconds)
    ranked = sorted(seconds)
    for quantile, number in zip((0.5, 0.99), counted.find_bins((0.5, 0.99)), strict=True):
        true = ranked[math.ceil(quantile * len(ranked)) - 1]
        assert true <= upper_edge(number) * (1 + 1e-9)
        assert upper_edge(number) <= true * 2 ** (1 / BINS_PER_DOUBLING) * (1 + 1e-9)
        assert counted.count_above(number) == sum(bin_of(each) > number for each in seconds)


def test_percentiles_of_many_are_those_that_statistics_finds() -> None:
    seconds = [0.001 * number for number in range(1, 10_001)]
    (found,) = tally(sample(seconds=each) for each in seconds).find_bins((0.9,))
    assert upper_edge(found) == pytest.approx(quantiles(seconds, n=10)[-1], rel=0.05)


@pytest.mark.parametrize(("seconds", "number"), [(math.nan, 0), (-1.0, 0), (0.0, 0), (math.inf, LAST_BIN)])
def test_a_latency_that_is_no_time_is_counted_at_an_end(seconds: float, number: int) -> None:
    assert bin_of(seconds) == number


@given(st.integers(0, LAST_BIN))
def test_a_bin_reaches_to_its_upper_edge(number: int) -> None:
    assert bin_of(upper_edge(number)) == number


def test_a_client_that_hung_up_counts_by_how_long_it_had_waited_and_as_no_failure() -> None:
    counted = tally([sample(status=499, seconds=5.0)])
    assert counted == Tally(requests=1, failures=0, latencies={bin_of(5.0): 1})
