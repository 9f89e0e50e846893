"""Differences between policies on the same questions.

A difference is one of ratios of sums over questions (`rlvr.evaluation.figures`), so a bootstrap draws whole questions,
with the answers of both policies.

Shapes: G = questions in common.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlvr.comparison.claims import claim
from rlvr.comparison.conditions import differing_conditions
from rlvr.comparison.paired import interval, resampled_sums
from rlvr.comparison.policies import (
    ChangedQuestion,
    FigureChange,
    PolicyAnswers,
    PolicyComparison,
    PolicyDifference,
    titled,
)
from rlvr.comparison.significance import detectable_effect, holm, sign_test
from rlvr.errors import RequestError
from rlvr.evaluation.answers import Asked, SetAnswers
from rlvr.evaluation.figures import Figure, Floats, Integers, figures_of, ratio


def compare_answers(
    policies: Sequence[PolicyAnswers], *, threshold: float, resamples: int, changed: int
) -> PolicyComparison:
    """Compare each policy with the first, on the questions that all have.

    Args:
        policies: Two or more.
        threshold: Rewards at or above this count as correct.
        resamples: Resamples of the bootstrap.
        changed: Number of changed questions to return, in each direction.

    Raises RequestError if no question is in common, or the verdicts are not those of one verifier.
    """
    first, *others = policies
    common, notes = _common(policies)
    if not common:
        files = " and ".join(str(each.side.file) for each in policies)
        raise RequestError(f"{files} have no question in common (and no id, as the same rollouts would have)")
    pairs = [_Pair.of(first, other, name, keys, threshold) for name, keys in common.items() for other in others]
    for pair in pairs:
        notes += differing_conditions(first, pair.other, pair.dataset, pair.keys)
    differences = [_difference(pair, resamples, len(pairs), changed) for pair in pairs]
    corrected = holm([each.p for each in differences])
    settled = tuple(replace(each, corrected_p=p) for each, p in zip(differences, corrected, strict=True))
    sides = tuple(each.side for each in policies)
    return PolicyComparison(
        sides, threshold, resamples, settled, tuple(map(claim, settled)), tuple(dict.fromkeys(notes))
    )


def _common(policies: Sequence[PolicyAnswers]) -> tuple[dict[str, list[str]], list[str]]:
    """Return data set → keys of the questions that all policies have, and notes about those that are left out.

    Keys are sorted, so that resamples depend neither on the order of the rows nor on that of the questions.
    """
    common: dict[str, list[str]] = {}
    notes = []
    for name in dict.fromkeys(name for each in policies for name in each.sets):
        having = [each for each in policies if name in each.sets]
        keys = [{asked.key for asked in each.sets[name].questions if asked.named} for each in having]
        shared = set.intersection(*keys) if len(having) == len(policies) else set()
        if not shared:
            notes.append(f"{titled(name)}: left out, because no question is in all files")
            continue
        common[name] = sorted(shared)
        left = {each.side.name: len(each.sets[name].questions) - len(shared) for each in having}
        if told := ", ".join(f"{count:,} of {side}" for side, count in left.items() if count):
            notes.append(f"{titled(name)}: questions that not all files have are left out: {told}")
    return common, notes


@dataclass(frozen=True)
class _Pair:
    """Figures of two policies over the questions of a data set that all policies have, in the order of `keys`."""

    first: PolicyAnswers
    other: PolicyAnswers
    dataset: str
    keys: Sequence[str]
    a: Mapping[str, Figure]
    b: Mapping[str, Figure]

    @classmethod
    def of(
        cls, first: PolicyAnswers, other: PolicyAnswers, dataset: str, keys: Sequence[str], threshold: float
    ) -> _Pair:
        """Compute the figures."""
        a, b = (_figures(each.sets[dataset], keys, threshold) for each in (first, other))
        return cls(first, other, dataset, keys, a, b)

    @property
    def main(self) -> str:
        """Name of the accuracy that both have. Raises RequestError if there is none."""
        name = next((name for name in ("avg", "greedy") if name in self.a and name in self.b), None)
        if name is None:
            raise RequestError(
                f"{titled(self.dataset)}: one of {self.first.side.file} and {self.other.side.file} has greedy answers "
                "only, and the other has none: there is no accuracy to compare"
            )
        return name


def _figures(of: SetAnswers, keys: Sequence[str], threshold: float) -> dict[str, Figure]:
    places = {asked.key: i for i, asked in enumerate(of.questions)}
    chosen_G = np.array([places[key] for key in keys], dtype=np.int64)
    found = figures_of(of.answers, len(of.questions), threshold).items()
    return {name: replace(each, sums_G=each.sums_G[chosen_G], sizes_G=each.sizes_G[chosen_G]) for name, each in found}


def _difference(pair: _Pair, resamples: int, comparisons: int, changed: int) -> PolicyDifference:
    """Return the difference of two policies; its `corrected_p` is not corrected yet."""
    names = [name for name in pair.a if name in pair.b]
    sums = {name: _paired_sums(pair.a[name], pair.b[name]) for name in names}
    drawn = resampled_sums(np.concatenate(list(sums.values()), axis=1), resamples, "policies", pair.dataset)
    changes: dict[str, FigureChange] = {}
    simultaneous = None
    for place, name in enumerate(names):
        sum_a, size_a, sum_b, size_b = drawn[:, 4 * place : 4 * place + 4].T
        differences = ratio(sum_b, size_b) - ratio(sum_a, size_a)
        changes[name] = _change(name, sums[name], interval(differences))
        if name == pair.main and changes[name].low is not None:
            simultaneous = interval(differences, 1 - 0.05 / comparisons)
    sums_G4 = sums[pair.main]
    right_a, counted_a, right_b, counted_b = sums_G4.T
    away_G = right_b * counted_a - right_a * counted_b  # whole numbers: equal shares are equal exactly
    better, worse = int((away_G > 0).sum()), int((away_G < 0).sum())
    p = sign_test(better, worse)
    gained, lost = _changed(pair, changed)
    return PolicyDifference(
        comparisons=comparisons,
        dataset=pair.dataset,
        a=pair.first.side.name,
        b=pair.other.side.name,
        verifier=pair.first.sets[pair.dataset].verifier,
        main=changes[pair.main],
        simultaneous=simultaneous,
        better=better,
        worse=worse,
        p=p,
        corrected_p=p,
        detectable=_detectable(sums_G4) if better + worse else None,
        figures=tuple(changes.values()),
        gained=gained,
        lost=lost,
    )


def _paired_sums(a: Figure, b: Figure) -> Floats:
    """Return sum and size of a and of b (G, 4); all are 0 for questions that only one has the figure of."""
    both_G = (a.sizes_G > 0) & (b.sizes_G > 0)
    columns: NDArray[Any] = np.stack([a.sums_G, a.sizes_G, b.sums_G, b.sizes_G], axis=1)
    return np.where(both_G[:, None], columns, 0.0)


def _change(name: str, sums_G4: Floats, ends: tuple[float, float] | None) -> FigureChange:
    """Return a figure's change. One question gives no interval: every resample is the same."""
    questions = int((sums_G4[:, 1] > 0).sum())
    if not questions:
        return FigureChange(name, None, None, None, None, None, 0)
    sum_a, size_a, sum_b, size_b = map(float, sums_G4.sum(axis=0))
    low, high = (None, None) if ends is None or questions == 1 else ends
    a, b = sum_a / size_a, sum_b / size_b
    return FigureChange(name, a, b, b - a, low, high, questions)


def _detectable(sums_G4: Floats) -> float | None:
    """Return the detectable difference in accuracy, from the variance between questions.

    None for one question, and if all questions differ by the same: no variance is observed.
    """
    questions = int((sums_G4[:, 1] > 0).sum())
    if questions < 2:
        return None
    right_a, counted_a, right_b, counted_b = sums_G4.T
    away_G = (right_b - right_b.sum() / counted_b.sum() * counted_b) / counted_b.sum()
    away_G -= (right_a - right_a.sum() / counted_a.sum() * counted_a) / counted_a.sum()
    variance = float((away_G**2).sum()) * questions / (questions - 1)
    return detectable_effect(math.sqrt(variance)) if variance > 1e-18 else None


def _changed(pair: _Pair, count: int) -> tuple[tuple[ChangedQuestion, ...], tuple[ChangedQuestion, ...]]:
    """Return the questions that improve most, and those that get worse most."""
    a, b = pair.a[pair.main], pair.b[pair.main]
    change_G = np.nan_to_num(ratio(b.sums_G, b.sizes_G) - ratio(a.sums_G, a.sizes_G))
    asked: dict[str, Asked] = {each.key: each for each in pair.first.sets[pair.dataset].questions}

    def told(places: Integers) -> tuple[ChangedQuestion, ...]:
        return tuple(
            ChangedQuestion(
                pair.keys[i],
                asked[pair.keys[i]].prompt,
                asked[pair.keys[i]].gold,
                (float(a.sums_G[i]), int(a.sizes_G[i])),
                (float(b.sums_G[i]), int(b.sizes_G[i])),
            )
            for i in places[:count].tolist()
        )

    up, down = np.argsort(-change_G, kind="stable"), np.argsort(change_G, kind="stable")
    return told(up[change_G[up] > 1e-12]), told(down[change_G[down] < -1e-12])
