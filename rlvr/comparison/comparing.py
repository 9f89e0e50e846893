"""Statistics of two verifiers on the same rollouts: flipped verdicts, their effect on training, and intervals.

The compared rewards are those that training would use (`rlvr.verify.scoring.DEFAULT_REWARDS`).

Shapes: N = matched rollouts; G = groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlvr.comparison.paired import interval, kappa, resampled_sums
from rlvr.comparison.verdict_pairs import KINDS, Pairs
from rlvr.evaluation.figures import Booleans, Floats, Integers, pass_at_k, ratio
from rlvr.record.schema import GroupStats

Interval: TypeAlias = tuple[float, float] | None

RESAMPLES = 2000


@dataclass(frozen=True)
class Change:
    """A figure by both verifiers over the same rollouts, and its change from a to b with a 95 % interval.

    All fields are None if the figure is not defined; the interval also if there are fewer than two groups.
    """

    a: float | None
    b: float | None
    difference: float | None
    interval: Interval


@dataclass(frozen=True)
class AtK:
    """avg@k and pass@k over the groups that have at least k rollouts with a reward from both."""

    k: int
    groups: int
    avg: Change
    passed: Change


@dataclass(frozen=True)
class Advantages:
    """Effect of the change on group-relative advantages.

    An advantage is zero in a group whose rewards are all equal, and for a rollout that training drops.
    """

    groups: int
    signal_a: int
    """Groups with a signal (rewards that differ) by a."""
    signal_b: int
    gained_signal: int
    lost_signal: int
    changed_groups: int
    """Groups in which at least one advantage changes its sign."""
    changed_rollouts: int


@dataclass(frozen=True)
class Agreement:
    """Agreement on right or not right, over the rollouts that have a reward from both."""

    raw: float | None
    kappa: float | None
    kappa_interval: Interval


@dataclass(frozen=True)
class Comparison:
    """Counts and figures of a comparison, without the texts of flips."""

    rows: int
    groups: int
    paired: int
    """Rollouts that training keeps with both verifiers."""
    dropped_a: int
    """Rollouts that training drops by a: no score, or a status without a reward."""
    dropped_b: int
    matrix: tuple[tuple[int, ...], ...]
    """Counts by `KINDS` of a (rows) and of b (columns)."""
    gained: int
    """Not right by a, right by b."""
    lost: int
    regraded: int
    """Right by both or wrong by both, with another reward."""
    reward: Change
    at_k: tuple[AtK, ...]
    advantages: Advantages
    agreement: Agreement


def compare_pairs(pairs: Pairs, *, threshold: float = 0.5, resamples: int = RESAMPLES) -> Comparison:
    """Compare the two sides.

    Args:
        pairs: Matched rollouts.
        threshold: Rewards at or above this count as correct.
        resamples: Resamples of the bootstrap, which draws whole groups.
    """
    kinds_a, kinds_b = pairs.a.kinds(threshold), pairs.b.kinds(threshold)
    rewards_a, rewards_b = pairs.a.rewards(), pairs.b.rewards()
    matrix = np.bincount(kinds_a * len(KINDS) + kinds_b, minlength=len(KINDS) ** 2).reshape(len(KINDS), len(KINDS))
    kept = ~np.isnan(rewards_a) & ~np.isnan(rewards_b)
    same_side = (kinds_a == kinds_b) & (kinds_a < 2)
    reward, at_k, agreement = _statistics(
        pairs.groups[kept], rewards_a[kept], rewards_b[kept], threshold=threshold, resamples=resamples
    )
    return Comparison(
        rows=len(pairs.ids),
        groups=len(np.unique(pairs.groups)),
        paired=int(kept.sum()),
        dropped_a=int(np.isnan(rewards_a).sum()),
        dropped_b=int(np.isnan(rewards_b).sum()),
        matrix=tuple(tuple(map(int, row)) for row in matrix),
        gained=int(((kinds_a != 0) & (kinds_b == 0)).sum()),
        lost=int(((kinds_a == 0) & (kinds_b != 0)).sum()),
        regraded=int((same_side & (pairs.a.graded != pairs.b.graded)).sum()),
        reward=reward,
        at_k=at_k,
        advantages=_advantages(pairs.groups, rewards_a, rewards_b),
        agreement=agreement,
    )


def _statistics(
    groups_N: Integers, a_N: Floats, b_N: Floats, *, threshold: float, resamples: int
) -> tuple[Change, tuple[AtK, ...], Agreement]:
    """Compute every figure with an interval from one bootstrap: each is a function of sums over drawn groups."""
    _, member_N = np.unique(groups_N, return_inverse=True)
    size = int(member_N.max()) + 1 if len(member_N) else 0

    def summed(values_N: NDArray[Any]) -> Floats:
        return np.bincount(member_N, weights=values_N, minlength=size).astype(np.float64)

    right_a, right_b = a_N >= threshold, b_N >= threshold
    count_G = np.bincount(member_N, minlength=size)
    of_a, of_b, difference = summed(a_N), summed(b_N), summed(b_N - a_N)
    # One entry per figure: numerators of a, of b and of the difference, then the denominator.
    figures = [(of_a, of_b, difference, count_G.astype(np.float64))]
    ks = [2**power for power in range(int(count_G.max()).bit_length())] if size else []
    for k in ks:
        enough = (count_G >= k).astype(np.float64)
        passed_a, passed_b = (
            np.nan_to_num(pass_at_k(count_G, summed(right).astype(np.int64), k)) for right in (right_a, right_b)
        )
        figures.append((enough * of_a / count_G, enough * of_b / count_G, enough * difference / count_G, enough))
        figures.append((passed_a, passed_b, passed_b - passed_a, enough))
    cases = [summed(case) for case in (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)]
    columns = np.stack([column for figure in figures for column in figure] + cases, axis=1)
    drawn = resampled_sums(columns, resamples if size > 1 else 0, "compare")
    total = columns.sum(axis=0, keepdims=True)

    changes = []
    for i in range(0, 4 * len(figures), 4):
        by_a, by_b, change = (_defined(ratio(total[0, i + j], total[0, i + 3])) for j in range(3))
        changes.append(Change(by_a, by_b, change, interval(ratio(drawn[:, i + 2], drawn[:, i + 3]))))
    at_k = tuple(
        AtK(k, int((count_G >= k).sum()), avg, passed)
        for k, avg, passed in zip(ks, changes[1::2], changes[2::2], strict=True)
    )
    both, only_a, only_b, neither = total[:, -4:].T
    agreement = Agreement(
        _defined(ratio(both + neither, both + only_a + only_b + neither)[0]),
        _defined(kappa(both, only_a, only_b, neither)[0]),
        interval(kappa(*drawn[:, -4:].T)),
    )
    return changes[0], at_k, agreement


def _defined(value: Any) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


def _advantages(groups_N: Integers, a_N: Floats, b_N: Floats) -> Advantages:
    whitened_a, signal_a = whitened(groups_N, a_N)
    whitened_b, signal_b = whitened(groups_N, b_N)
    changed = np.sign(whitened_a) != np.sign(whitened_b)
    return Advantages(
        groups=len(signal_a),
        signal_a=int(signal_a.sum()),
        signal_b=int(signal_b.sum()),
        gained_signal=int((~signal_a & signal_b).sum()),
        lost_signal=int((signal_a & ~signal_b).sum()),
        changed_groups=len(np.unique(groups_N[changed])),
        changed_rollouts=int(changed.sum()),
    )


def whitened(groups_N: Integers, rewards_N: Floats) -> tuple[Floats, Booleans]:
    """Return group-relative advantages (N,) as `GroupStats.whiten` has them, and which groups have a signal (G,).

    Rollouts without a reward (NaN) are not part of their group. Their advantages are 0.
    """
    _, member_N = np.unique(groups_N, return_inverse=True)
    kept = np.flatnonzero(~np.isnan(rewards_N))
    ordered = kept[np.argsort(member_N[kept], kind="stable")]
    result, signal = np.zeros(len(rewards_N)), np.zeros(int(member_N.max(initial=-1)) + 1, dtype=bool)
    for places in np.split(ordered, np.flatnonzero(np.diff(member_N[ordered])) + 1):
        if len(places):
            rewards = rewards_N[places].tolist()
            stats = GroupStats.of(rewards)
            signal[member_N[places[0]]] = stats.has_signal
            result[places] = stats.whiten(rewards)
    return result, signal


def worst(pairs: Pairs, count: int) -> list[int]:
    """Return the indices of the pairs whose verdicts differ most.

    The order is by the difference of rewards (a verdict that training drops counts as 0), then by how much the group's
    advantages change, Σ|A_b - A_a|.
    """
    a, b = pairs.a.rewards(), pairs.b.rewards()
    differ = (pairs.a.codes != pairs.b.codes) | (np.nan_to_num(pairs.a.graded) != np.nan_to_num(pairs.b.graded))
    moved = np.abs(whitened(pairs.groups, b)[0] - whitened(pairs.groups, a)[0])
    influence = np.bincount(pairs.groups, moved)[pairs.groups] if len(moved) else moved
    distance = np.abs(np.nan_to_num(b) - np.nan_to_num(a))
    candidates = np.flatnonzero(differ)
    order = np.lexsort((candidates, -influence[candidates].round(9), -distance[candidates]))
    return [int(i) for i in candidates[order[:count]]]
