"""Wilson's interval against its definition, a decimal computation and published values; quantiles."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.bench.intervals import Z95, Share, quantile, wilson


def in_decimal(hits: int, trials: int) -> tuple[float, float]:
    """Return the two roots of (p̂ - p)² = z² p (1 - p) / n, by the quadratic formula with 50 digits."""
    getcontext().prec = 50
    z2, n, share = Decimal(Z95) ** 2, Decimal(trials), Decimal(hits) / Decimal(trials)
    a, b, c = 1 + z2 / n, -(2 * share + z2 / n), share * share
    root = (b * b - 4 * a * c).sqrt()
    return float((-b - root) / (2 * a)), float((-b + root) / (2 * a))


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_is_the_interval_of_the_definition(pair: tuple[int, int]) -> None:
    low, high = wilson(*pair)
    assert 0 <= low <= pair[0] / pair[1] <= high <= 1
    assert (low, high) == pytest.approx(in_decimal(*pair), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)],
)
def test_values_that_tables_have(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_the_ends_are_exact() -> None:
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 1000), st.data())
def test_hits_and_misses_mirror_each_other(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(-1, 3), (4, 3)])
def test_what_is_no_share_is_refused(hits: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} of {trials}"):
        wilson(hits, trials)


def test_a_share_without_a_trial_is_zero_and_unknown() -> None:
    assert Share(0, 0).value == 0.0
    assert Share(0, 0).interval == (0.0, 1.0)
    assert Share(1, 4).value == 0.25


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1))
def test_a_quantile_is_a_value_that_a_share_of_the_values_does_not_exceed(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-6
    assert sum(value < found for value in values) < q * len(values)


def test_quantiles() -> None:
    assert quantile(range(1, 101), 0.99) == 99
    assert quantile(range(1, 101), 0.07) == 7
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    for values, q in (([], 0.5), ([1.0], 0.0), ([1.0], math.nextafter(1, 2))):
        with pytest.raises(ValueError, match="quantile"):
            quantile(values, q)
