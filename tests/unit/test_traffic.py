"""A share of traffic as the text that requests' numbers are compared with."""

import pytest

from router.core.traffic import cut_for


@pytest.mark.parametrize(
    ("weight", "cut"), [(0, "0000"), (50, "8000"), (99.99, "fff9"), (99.9999, "g"), (100, "g")]
)
def test_a_share_is_the_cut_that_lets_so_many_numbers_sort_before_it(weight: float, cut: str) -> None:
    assert cut_for(weight) == cut


def test_a_sticky_cut_lets_the_same_numbers_through() -> None:
    assert [number < cut_for(50, sticky=True) for number in ("7fffffff-", "80000000-")] == [True, False]
