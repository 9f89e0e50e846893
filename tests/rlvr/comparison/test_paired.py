"""Statistics of pairs, against enumeration and closed forms."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.comparison.paired import interval, kappa, resampled_sums
from rlvr.evaluation.figures import pass_at_k, ratio


def test_the_bootstrap_s_distribution_is_the_enumerated_one() -> None:
    values = np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 1.0]])  # a ratio: of unequal clusters
    drawn = resampled_sums(values, 27_000, "test")
    counted = Counter(map(tuple, drawn.tolist()))
    expected = Counter(tuple(values[list(chosen)].sum(axis=0).tolist()) for chosen in product(range(3), repeat=3))
    assert set(counted) == set(expected)
    for sums, ways in expected.items():
        assert counted[sums] == pytest.approx(1000 * ways, abs=5 * math.sqrt(1000 * ways))


def test_the_interval_is_that_of_the_enumeration() -> None:
    values = np.array([[0.0], [1.0], [5.0], [7.0]])
    means = np.array([values[list(chosen)].mean() for chosen in product(range(4), repeat=4)])
    drawn = resampled_sums(values, 50_000, "test")[:, 0] / 4
    expected = np.quantile(means, [0.025, 0.975])
    assert interval(drawn) == pytest.approx(expected, abs=0.251)  # one step of the distribution's support
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.02)
    assert drawn.std() == pytest.approx(values.std() / 2, rel=0.02)  # σ/√G, in closed form


def test_draws_depend_on_the_key_alone_and_not_on_how_many_there_are() -> None:
    values = np.arange(12.0).reshape(6, 2)
    assert np.array_equal(resampled_sums(values, 50, "a"), resampled_sums(values, 50, "a"))
    assert not np.array_equal(resampled_sums(values, 50, "a"), resampled_sums(values, 50, "b"))
    assert resampled_sums(values, 0, "a").shape == (0, 2)


def test_more_clusters_than_fit_into_one_chunk() -> None:
    drawn = resampled_sums(np.ones((7, 1)), 9, "a", at_once=16)
    assert drawn.tolist() == [[7.0]] * 9


def test_an_interval_leaves_out_what_is_not_defined() -> None:
    assert interval(np.array([np.nan, 2.0, 2.0])) == (2.0, 2.0)
    assert interval(np.array([np.nan])) is None
    assert interval(np.array([])) is None
    assert interval(np.arange(101.0), 0.5) == (25.0, 75.0)


@pytest.mark.parametrize("count", range(1, 8))
def test_pass_at_k_is_the_mean_over_all_choices_of_k(count: int) -> None:
    for right in range(count + 1):
        rollouts = [True] * right + [False] * (count - right)
        for k in range(1, count + 2):
            (found,) = pass_at_k(np.array([count]), np.array([right]), k)
            if k > count:
                assert math.isnan(found)
                continue
            chosen = list(combinations(rollouts, k))
            assert found == pytest.approx(sum(map(any, chosen)) / len(chosen), abs=1e-12)


@given(st.tuples(*[st.integers(0, 50)] * 4))
def test_kappa_is_the_fraction(counts: tuple[int, int, int, int]) -> None:
    both, only_a, only_b, neither = counts
    (found,) = kappa(*(np.array([float(count)]) for count in counts))
    total = sum(counts)
    if not total:
        assert math.isnan(found)
        return
    yes_a, yes_b = Fraction(both + only_a, total), Fraction(both + only_b, total)
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    if chance == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float((Fraction(both + neither, total) - chance) / (1 - chance)), abs=1e-12)


def test_kappa_of_textbook_counts() -> None:
    found = kappa(*(np.array([count]) for count in (20.0, 5.0, 10.0, 15.0)))
    assert found.tolist() == pytest.approx([0.4])


def test_a_ratio_with_nothing_below_is_not_defined() -> None:
    assert np.array_equal(ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])), [0.5, np.nan], equal_nan=True)
