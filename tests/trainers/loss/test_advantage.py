"""Whitening and the signal, against plain arithmetic."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.protocols import RewardPart
from rlvr.record.schema import GroupStats
from rlvr_trainers.loss.advantage import ADVANTAGES, centered, opmd, raw, whiten, whiten_parts

REWARDS = st.lists(st.floats(-5, 5), min_size=2, max_size=16).filter(lambda r: max(r) - min(r) > 1e-3)


@settings(deadline=None)
@given(REWARDS, st.sampled_from([0.0, 1e-6, 0.1]))
def test_whitening_is_by_mean_and_population_variance(rewards: list[float], epsilon: float) -> None:
    mean, variance = statistics.mean(rewards), statistics.pvariance(rewards)
    expected = [(r - mean) / (variance + epsilon) ** 0.5 for r in rewards]
    assert whiten(rewards, GroupStats.of(rewards), epsilon) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(REWARDS)
def test_stated_factor_turns_trl_advantages_into_these(rewards: list[float]) -> None:
    group, epsilon = len(rewards), 1e-6
    bessel = statistics.stdev(rewards)
    trl = [(r - statistics.mean(rewards)) / (bessel + 1e-4) for r in rewards]
    sigma = statistics.pstdev(rewards)
    factor = (sigma * (group / (group - 1)) ** 0.5 + 1e-4) / (sigma**2 + epsilon) ** 0.5
    ours = whiten(rewards, GroupStats.of(rewards), epsilon)
    assert ours == pytest.approx([a * factor for a in trl], rel=1e-9, abs=1e-9)


def test_statistics_are_the_behaviour_group_s_not_those_of_what_is_left() -> None:
    sampled = GroupStats.of([0.0, 0.0, 1.0, 1.0])
    assert whiten([1.0, 1.0], sampled, 0.0) == [1.0, 1.0]
    assert sampled.has_signal


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.0, 1.0])
def test_equal_rewards_have_a_deviation_of_exactly_zero(reward: float) -> None:
    stats = GroupStats.of([reward] * 16)
    assert stats.std == 0.0
    assert not stats.has_signal
    assert whiten([reward] * 16, stats, 0.0) == [0.0] * 16


def test_the_smallest_difference_is_a_signal() -> None:
    assert GroupStats.of([0.1] * 15 + [0.1 + 1e-12]).has_signal


@settings(deadline=None)
@given(REWARDS)
def test_centered_and_raw(rewards: list[float]) -> None:
    stats = GroupStats.of(rewards)
    assert centered(rewards, stats) == pytest.approx([r - statistics.fmean(rewards) for r in rewards], abs=1e-12)
    assert raw(rewards, stats) == rewards


@settings(deadline=None)
@given(REWARDS, st.floats(0.05, 50))
def test_mirror_descent_s_baseline_is_between_the_mean_and_the_maximum(rewards: list[float], tau: float) -> None:
    baseline = tau * math.log(statistics.fmean(math.exp(r / tau) for r in rewards))
    found = opmd(rewards, GroupStats.of(rewards), tau)
    assert found == pytest.approx([r - baseline for r in rewards], rel=1e-9, abs=1e-9)
    assert statistics.fmean(rewards) - 1e-9 <= baseline <= max(rewards) + 1e-9


def test_mirror_descent_s_baseline_survives_any_temperature() -> None:
    rewards = [0.0, 1.0, 1.0, 0.0]
    assert opmd(rewards, GroupStats.of(rewards), 1e-4) == pytest.approx([-1.0, 0.0, 0.0, -1.0], abs=1e-3)
    assert opmd(rewards, GroupStats.of(rewards), 1e6) == pytest.approx([-0.5, 0.5, 0.5, -0.5], abs=1e-6)


def test_no_estimator_gives_equal_rewards_an_advantage_but_the_raw_one() -> None:
    stats = GroupStats.of([0.3] * 4)
    assert centered([0.3] * 4, stats) == whiten([0.3] * 4, stats, 0.0) == [0.0] * 4
    assert opmd([0.3] * 4, stats, 1.0) == pytest.approx([0.0] * 4, abs=1e-15)
    assert set(ADVANTAGES) == {"whitened", "centered", "opmd", "raw"}


def parts_of(columns: dict[str, tuple[float, list[float]]]) -> list[RewardPart]:
    return [RewardPart(name, weight, tuple(rewards)) for name, (weight, rewards) in columns.items()]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-2, 2), st.lists(st.floats(-5, 5), min_size=4, max_size=4)), min_size=1, max_size=3),
    st.sampled_from([1e-6, 0.1]),
)
def test_parts_are_whitened_one_by_one_and_then_added(columns: list[tuple[float, list[float]]], epsilon: float) -> None:
    found = whiten_parts(parts_of({str(i): column for i, column in enumerate(columns)}), epsilon)
    expected = np.zeros(4)
    for weight, rewards in columns:
        values = np.array(rewards, dtype=np.float64)
        expected += weight * (values - values.mean()) / np.sqrt(values.var() + epsilon)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_equal_sums_of_different_parts_keep_different_advantages() -> None:
    answer, form = [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]
    sums = [a + f for a, f in zip(answer, form, strict=True)]
    whole = whiten(sums, GroupStats.of(sums), 0.0)
    assert whole[0] == whole[1]
    found = whiten_parts(parts_of({"answer": (1.0, answer), "form": (1.0, form)}), 0.0)
    assert found == pytest.approx([1 - 3**0.5, -1 + 3**-0.5, 1 + 3**-0.5, -1 + 3**-0.5])
