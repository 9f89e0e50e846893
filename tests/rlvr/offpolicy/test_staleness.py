"""Distances by part, against plain Python floats, and where floats would overflow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.offpolicy.staleness import BUCKETS, bucket_of, distances, effective_sample_size, means, oldest

Row = tuple[int, int, float]
"""Rollout, part and log w of one token."""


def plain(tokens: Sequence[Row], part: int) -> dict[str, float]:
    """Return the distances by their definitions."""
    mine = [x for _, p, x in tokens if p == part]
    w = [math.exp(x) for x in mine]
    n = len(mine)
    rows = {row: max(p for r, p, _ in tokens if r == row) for row, _, _ in tokens}
    sequences = [
        math.exp(math.fsum(x for r, _, x in tokens if r == row)) for row, where in rows.items() if where == part
    ]

    def ess(weights: list[float]) -> float:
        return sum(weights) ** 2 / (len(weights) * sum(v * v for v in weights)) if weights else math.nan

    return {
        "log_w_mean": math.fsum(mine) / n,
        "log_w_square": math.fsum(x * x for x in mine) / n,
        "ratio_mean": math.fsum(w) / n,
        "ratio_max": max(w),
        "kl_k1": -math.fsum(mine) / n,
        "kl_k3": math.fsum(v - 1 - x for v, x in zip(w, mine, strict=True)) / n,
        "chi2": math.fsum(v * v for v in w) / n - 1,
        "ess_token": ess(w),
        "ess_sequence": ess(sequences),
    }


tokens_of_rollouts = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.floats(-5, 5, allow_nan=False)), min_size=1, max_size=30
)


@given(tokens_of_rollouts)
def test_distances_are_their_definitions(tokens: list[Row]) -> None:
    row_N, part_N, log_w_N = (np.array(column) for column in zip(*tokens, strict=True))
    found = distances(log_w_N.astype(float), row_N, part_N, 4)
    for part in range(4):
        if part not in part_N:
            assert all(math.isnan(values[part]) for values in found.values())
            continue
        expected = plain(tokens, part)
        assert {name: values[part] for name, values in found.items()} == pytest.approx(
            expected, rel=1e-9, abs=1e-12, nan_ok=True
        )


def test_estimators_average_to_the_divergences_they_name() -> None:
    """The ten draws have α's proportions, so their mean is the exact expectation."""
    mu, pi = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    draws = [0] * 5 + [1] * 3 + [2] * 2
    log_w_N = np.array([math.log(pi[x] / mu[x]) for x in draws])
    found = distances(log_w_N, np.arange(10), np.zeros(10, dtype=np.int64), 1)
    kl = sum(m * math.log(m / p) for m, p in zip(mu, pi, strict=True))
    assert found["kl_k1"][0] == pytest.approx(kl)
    assert found["kl_k3"][0] == pytest.approx(kl)
    assert found["chi2"][0] == pytest.approx(sum((p - m) ** 2 / m for m, p in zip(mu, pi, strict=True)))
    assert found["ratio_mean"][0] == pytest.approx(1.0)


def test_k3_keeps_the_digits_of_a_small_ratio() -> None:
    one = np.zeros(1, dtype=np.int64)
    # exp(x) - 1 - x is rounding noise here; the value is x²/2.
    assert distances(np.array([1e-8]), one, one, 1)["kl_k3"][0] == pytest.approx(5e-17, rel=1e-6)


@given(tokens_of_rollouts, st.floats(-900, 900))
def test_the_effective_sample_size_does_not_depend_on_a_common_factor(tokens: list[Row], factor: float) -> None:
    """Weights of e^900 exceed the range of floats."""
    _, part_N, log_w_N = (np.array(column) for column in zip(*tokens, strict=True))
    moved = effective_sample_size(log_w_N + factor, part_N, 3)
    assert moved == pytest.approx(effective_sample_size(log_w_N.astype(float), part_N, 3), rel=1e-6, nan_ok=True)


def test_a_bucket_of_huge_weights_leaves_its_neighbor_alone() -> None:
    log_w_N, part_N = np.array([800.0, 800.0, -800.0, -800.0]), np.array([0, 0, 1, 1])
    found = distances(log_w_N, np.arange(4), part_N, 2)
    assert found["ess_token"].tolist() == pytest.approx([1.0, 1.0])
    assert found["chi2"][0] == math.inf
    assert found["chi2"][1] == -1.0


def test_what_is_not_a_number_is_shown_as_such() -> None:
    found = distances(np.array([math.nan, 0.0]), np.arange(2), np.array([0, 1]), 2)
    assert math.isnan(found["ess_token"][0])
    assert found["ess_token"][1] == 1.0
    infinite = distances(np.array([math.inf, 0.0]), np.arange(2), np.array([0, 0]), 1)
    assert infinite["ratio_max"][0] == math.inf


def test_no_tokens_are_no_numbers() -> None:
    empty = np.array([], dtype=np.int64)
    found = distances(np.array([]), empty, empty, 2)
    assert all(np.isnan(values).all() for values in found.values())


def test_lags_and_their_buckets() -> None:
    lags = [0, 1, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 10_000, -1]
    names = [BUCKETS[i] for i in bucket_of(lags, [True] * len(lags))]
    assert names == [
        *("0", "1-3", "1-3", "4-7", "4-7", "8-15", "8-15", "16-31", "16-31", "32-63", "32-63", "64-up", "64-up"),
        "newer",
    ]
    assert [BUCKETS[i] for i in bucket_of([0, 5], [False, False])] == ["unknown"] * 2


def test_a_rollout_is_as_old_as_its_oldest_token() -> None:
    part_N = bucket_of([9, 0, 5, 0], [True, True, False, True])
    assert [BUCKETS[p] for p in oldest(part_N, np.array([0, 0, 1, 1]), 2)] == ["8-15", "unknown"]
    assert oldest(part_N, np.array([0, 0, 2, 2]), 3)[1] == -1


def test_means_by_part() -> None:
    found = means([True, False, True], np.array([0, 0, 2]), 3)
    assert found[[0, 2]].tolist() == [0.5, 1.0]
    assert math.isnan(found[1])
