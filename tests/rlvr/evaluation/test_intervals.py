"""Intervals against their definitions, published values and simulated coverage; quantiles."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.evaluation.intervals import (
    Z95,
    Share,
    clustered_interval,
    mean_interval,
    quantile,
    student_t95,
    wilson,
)


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


# --- clusters -------------------------------------------------------------------------------------------------------


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_clusters_that_are_right_or_wrong_as_a_whole_are_the_trials() -> None:
    assert clustered_interval([1, 0, 1, 1], [1, 1, 1, 1]) == wilson(3, 4)
    assert clustered_interval([8, 0, 8, 8], [8, 8, 8, 8]) == wilson(3, 4), "eight equal answers say no more than one"
    assert clustered_interval([4] * 30, [4] * 30) == wilson(30, 30)
    assert clustered_interval([0] * 30, [4] * 30) == wilson(0, 30)


def test_one_cluster_is_one_trial() -> None:
    assert clustered_interval([8], [8]) == wilson(1, 1)
    assert clustered_interval([2], [8]) == wilson(0.25, 1)


def test_clusters_with_one_share_have_no_variance_and_count_once_each() -> None:
    assert clustered_interval([4, 4, 4, 4], [8, 8, 8, 8]) == wilson(2, 4)
    # 1/49 · 49 is not 1: rounding is no variance.
    assert clustered_interval([1.0] * 5, [49.0] * 5) == wilson(5 / 49, 5)


def test_spread_between_clusters_counts_for_between_clusters_and_answers() -> None:
    sums, sizes = [2, 1, 1, 3] * 10, [3] * 40
    assert width(wilson(70, 120)) <= width(clustered_interval(sums, sizes)) <= width(wilson(70 / 3, 40))


def test_the_effective_number_of_trials_by_hand() -> None:
    sums, sizes = [4, 1, 3, 0, 2, 3], [4, 4, 4, 4, 4, 3]  # 13 of 23
    share = 13 / 23
    squares = sum((own - share * size) ** 2 for own, size in zip(sums, sizes, strict=True))
    trials = share * (1 - share) / (squares * 6 / 5 / 23**2) * (Z95 / 2.570581836) ** 2
    assert clustered_interval(sums, sizes) == pytest.approx(wilson(share * trials, trials), rel=1e-9)
    assert clustered_interval(sums, sizes, trials=3.0) == pytest.approx(wilson(share * 3, 3))


def simpson_below(t: float, degrees: int) -> float:
    """Return P(|T| <= t) by integrating the density numerically."""
    x = np.linspace(0.0, t, 20_001)
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    density = np.exp(log_scale - (degrees + 1) / 2 * np.log1p(x * x / degrees))
    weights = np.full(len(x), 2.0)
    weights[1::2], weights[[0, -1]] = 4.0, 1.0
    return 2 * float(weights @ density) * t / 20_000 / 3


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 99, 100, 101, 500, 5000])
def test_quantiles_of_student_s_t(degrees: int) -> None:
    assert simpson_below(student_t95(degrees), degrees) == pytest.approx(0.95, abs=1e-8)


def test_quantiles_of_student_s_t_in_closed_form_and_at_the_ends() -> None:
    assert student_t95(1) == pytest.approx(math.tan(math.pi * 0.475), rel=1e-12)
    assert student_t95(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    assert student_t95(100) == pytest.approx(1.983971519, abs=1e-8)
    assert student_t95(10**9) == pytest.approx(Z95)
    with pytest.raises(ValueError, match="0 degrees"):
        student_t95(0)


def test_the_interval_of_a_mean() -> None:
    values = [3.0, 5.0, 10.0, 6.0]
    half = 3.182446305 * np.std(values, ddof=1) / 2
    assert mean_interval(values, [1] * 4) == pytest.approx((6 - half, 6 + half))
    assert mean_interval([3.0, 3.0], [1, 1]) == (3.0, 3.0)
    assert mean_interval([3.0], [1]) is None


@pytest.mark.parametrize("questions", [20, 30, 200])
@pytest.mark.parametrize("samples", [4, 16])
def test_intervals_cover_the_truth_in_about_95_of_100_evaluations(questions: int, samples: int) -> None:
    """The bounds allow for 1,000 simulated evaluations and, for the skewed lengths, for few questions."""
    generator = np.random.default_rng(questions * samples)
    difficulty = generator.beta(2, 2, (1000, questions))
    right = generator.binomial(samples, difficulty)
    lengths = generator.exponential(100 * (1 + difficulty))
    sizes = [samples] * questions
    shares = [clustered_interval(own, sizes) for own in right.tolist()]
    means = [mean_interval(own, [1] * questions) for own in lengths.tolist()]
    assert 0.93 < np.mean([low <= 0.5 <= high for low, high in shares]) < 0.975
    assert 0.91 < np.mean([own is not None and own[0] <= 150 <= own[1] for own in means]) < 0.975
