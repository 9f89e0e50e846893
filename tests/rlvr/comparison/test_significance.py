"""Sign test, detectable effect and Holm's correction, against enumeration, closed forms and simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.comparison.significance import detectable_effect, holm, sign_test


@pytest.mark.parametrize("total", range(13))
def test_the_sign_test_counts_the_splits_that_are_at_least_as_uneven(total: int) -> None:
    splits = [sum(signs) for signs in product((0, 1), repeat=total)]
    for better in range(total + 1):
        uneven = abs(2 * better - total)
        expected = Fraction(sum(abs(2 * split - total) >= uneven for split in splits), len(splits))
        assert sign_test(better, total - better) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (9, 1, 0.021484375), (50, 50, 1.0)])
def test_known_values_of_the_sign_test(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == sign_test(worse, better) == p


def test_the_sign_test_of_many_questions_is_the_normal_one() -> None:
    z = (5200 - 5000 - 0.5) / 50  # with the correction for continuity
    assert sign_test(5200, 4800) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=5e-3)
    assert 0 <= sign_test(20_000, 0) < 1e-300


def test_a_difference_of_the_detectable_size_is_found_80_times_of_100() -> None:
    generator = np.random.default_rng(0)
    error = 0.02
    found = np.abs(generator.normal(detectable_effect(error), error, 200_000)) > 1.959963984540054 * error
    assert found.mean() == pytest.approx(0.8, abs=0.005)
    assert detectable_effect(0.0) == 0.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_procedure_rejects(p_values: list[float]) -> None:
    rejected: set[int] = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected
