"""Figures of an evaluation. Each is a ratio of sums over questions, so intervals and comparisons take whole questions.

Shapes: N = completions; G = questions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlvr.errors import RequestError
from rlvr.evaluation.intervals import clustered_interval, mean_interval

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Booleans: TypeAlias = NDArray[np.bool_]

RIGHT = 0.5
"""Rewards at or above this count as correct."""


def check_threshold(threshold: float) -> None:
    """Raise RequestError if no reward can be compared with the threshold."""
    if not math.isfinite(threshold):
        raise RequestError(f"the threshold is {threshold}: rewards are compared with a finite number")


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, clustered by question. What is not defined is None."""

    value: float | None
    low: float | None
    high: float | None
    questions: int
    """Questions that the figure is computed from."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-safe values."""
        return asdict(self)


@dataclass(frozen=True)
class Figure:
    """A figure over questions, Σ sums / Σ sizes."""

    sums_G: Floats
    sizes_G: Floats
    """Weights of the questions; 0 leaves one out."""
    share: bool
    """True if the values are between 0 and their size."""
    trials: float | None = None
    """Largest number of independent trials that a share can be worth; None is Σ sizes."""

    def estimate(self, chosen_G: Booleans | None = None) -> Estimate:
        """Return the figure with its interval, over all questions or the chosen ones."""
        there_G = self.sizes_G > 0 if chosen_G is None else (self.sizes_G > 0) & chosen_G
        sums, sizes = self.sums_G[there_G].tolist(), self.sizes_G[there_G].tolist()
        if not sizes:
            return Estimate(None, None, None, 0)
        trials = None if self.trials is None else self.trials * sum(sizes) / float(self.sizes_G.sum())
        interval = clustered_interval(sums, sizes, trials) if self.share else mean_interval(sums, sizes)
        low, high = interval or (None, None)
        if low is not None and min(sums) >= 0:
            low = max(low, 0.0)  # Student's interval knows no bounds, a mean of numbers that are not negative has one
        return Estimate(float(np.sum(sums) / np.sum(sizes)), low, high, len(sizes))


@dataclass(frozen=True)
class Answers:
    """Completions of the questions of a data set, as columns (N,)."""

    question_N: Integers
    """Index of the question."""
    greedy_N: Booleans
    """Sampled at temperature 0."""
    reward_N: Floats
    """Reward as training uses it: unparsed is 0; NaN for a verdict without one."""
    judged_N: Booleans
    """There is a verdict."""
    unparsed_N: Booleans
    truncated_N: Floats
    """1 if the completion reached the length limit, else 0; NaN if that is unknown."""
    tokens_N: Floats
    """Sampled tokens; NaN if unknown."""
    extracted: Sequence[str | None]
    """Answers that the verifier has read out of the completions."""


def figures_of(answers: Answers, questions: int, threshold: float = RIGHT) -> dict[str, Figure]:
    """Return the figures by name; those that the answers do not define are left out.

    `avg` is the share of sampled completions that are right, `pass@k` and `maj` are those of `pass_at_k` and
    `majority`, and `greedy` is the share that is right at temperature 0. `reward`, `tokens`, `truncated` and `unparsed`
    describe the sampled completions, or the greedy ones if there are no others.
    """
    counted_N = ~np.isnan(answers.reward_N)
    right_N = counted_N & (np.nan_to_num(answers.reward_N) >= threshold)
    sampled_N = ~answers.greedy_N
    described_N = sampled_N if sampled_N.any() else answers.greedy_N

    def summed(values_N: NDArray[Any], over_N: Booleans) -> Floats:
        weights = values_N[over_N].astype(np.float64)
        return np.bincount(answers.question_N[over_N], weights=weights, minlength=questions).astype(np.float64)

    def ratio_over(values_N: NDArray[Any], over_N: Booleans, *, share: bool = True) -> Figure:
        return Figure(summed(values_N, over_N), summed(np.ones(len(values_N)), over_N), share)

    found: dict[str, Figure] = {}
    if sampled_N.any():
        found["avg"] = ratio_over(right_N, counted_N & sampled_N)
        count_G = summed(counted_N, sampled_N).astype(np.int64)
        right_G = summed(right_N, sampled_N).astype(np.int64)
        for k in (2**power for power in range(int(count_G.max(initial=0)).bit_length())):
            enough_G = (count_G >= k).astype(np.float64)
            passed_G = np.nan_to_num(pass_at_k(count_G, right_G, k))
            found[f"pass@{k}"] = Figure(passed_G, enough_G, True, float((count_G * enough_G).sum()) / k)
        if int(count_G.max(initial=0)) > 1 and (vote := majority(answers, right_N, counted_N, questions)) is not None:
            found["maj"] = vote
    if answers.greedy_N.any():
        found["greedy"] = ratio_over(right_N, counted_N & answers.greedy_N)
    rewards_N = np.nan_to_num(answers.reward_N)
    within = bool(((rewards_N >= 0) & (rewards_N <= 1)).all())
    found["reward"] = ratio_over(rewards_N, counted_N & described_N, share=within)
    if (known_N := ~np.isnan(answers.tokens_N) & described_N).any():
        found["tokens"] = ratio_over(np.nan_to_num(answers.tokens_N), known_N, share=False)
    if (known_N := ~np.isnan(answers.truncated_N) & described_N).any():
        found["truncated"] = ratio_over(np.nan_to_num(answers.truncated_N), known_N)
    found["unparsed"] = ratio_over(answers.unparsed_N, answers.judged_N & described_N)
    return found


def pass_at_k(count_G: Integers, right_G: Integers, k: int) -> Floats:
    """Return pass@k, the chance that one of k of a prompt's rollouts is right: 1 - C(n-c, k) / C(n, k).

    n = `count_G` rollouts, c = `right_G` of them right. Unbiased (Chen et al., arXiv 2107.03374, eq. 1).
    NaN for a prompt with fewer than k rollouts.
    """
    none_right = np.ones(len(count_G))
    for drawn in range(k):
        none_right *= ratio(np.maximum(count_G - right_G - drawn, 0.0), count_G - drawn)
    return np.where(count_G >= k, 1.0 - none_right, np.nan)


def majority(answers: Answers, right_N: Booleans, counted_N: Booleans, questions: int) -> Figure | None:
    """Return whether the most frequent answer of each question is right; None if the verifier reads no answers out.

    Every sampled completion that counts and has an extracted answer votes for it; answers are equal if their texts are,
    apart from white space. Of answers with equally many votes, each counts in equal parts. An answer that the verifier
    calls right in one completion and wrong in another counts by the share. If all of a question's completions are
    unparsed, its majority is wrong; if there is no vote for another reason, the question has none.
    """
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    right_votes: dict[int, Counter[str]] = defaultdict(Counter)
    for i in np.flatnonzero(counted_N & ~answers.greedy_N & ~answers.unparsed_N).tolist():
        text = answers.extracted[i]
        if text is not None:
            answer, question = " ".join(text.split()), int(answers.question_N[i])
            votes[question][answer] += 1
            right_votes[question][answer] += bool(right_N[i])
    if not votes:
        return None
    sums_G, sizes_G = np.zeros(questions), np.zeros(questions)
    unreadable_N = counted_N & ~answers.greedy_N & answers.unparsed_N
    graded_N = counted_N & ~answers.greedy_N & ~answers.unparsed_N
    without_vote = set(answers.question_N[unreadable_N].tolist()) - set(answers.question_N[graded_N].tolist())
    sizes_G[sorted(without_vote)] = 1
    for question, counts in votes.items():
        most = max(counts.values())
        winners = [answer for answer, count in counts.items() if count == most]
        sizes_G[question] = 1
        sums_G[question] = sum(right_votes[question][answer] for answer in winners) / (most * len(winners))
    return Figure(sums_G, sizes_G, True)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Divide element by element; NaN if the denominator is 0."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
