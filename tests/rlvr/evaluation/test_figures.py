"""Figures of recorded answers, by hand and by enumeration."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from rlvr.evaluation.figures import Answers, Estimate, figures_of
from rlvr.evaluation.intervals import wilson


def answers(*rows: tuple[int, float | None, str | None], **more: Any) -> Answers:
    """Return the answers of rows (question, reward, extracted); a reward without an extracted answer is unparsed."""
    size = len(rows)
    rewards = [np.nan if reward is None else reward for _, reward, _ in rows]
    given = {
        "question_N": np.array([question for question, _, _ in rows]),
        "greedy_N": np.zeros(size, dtype=bool),
        "reward_N": np.array(rewards),
        "judged_N": np.ones(size, dtype=bool),
        "unparsed_N": np.array([reward == 0 and text is None for _, reward, text in rows]),
        "truncated_N": np.zeros(size),
        "tokens_N": np.full(size, 5.0),
        "extracted": [text for _, _, text in rows],
    }
    return Answers(**{**given, **more})


def vote(*rows: tuple[int, float | None, str | None]) -> Estimate | None:
    figure = figures_of(answers(*rows), 1 + max(row[0] for row in rows)).get("maj")
    return None if figure is None else figure.estimate()


def test_the_most_frequent_answer_counts() -> None:
    found = vote((0, 1.0, "4"), (0, 1.0, " 4 "), (0, 0.0, "5"), (1, 0.0, "7"), (1, 0.0, "7"), (1, 1.0, "8"))
    assert found == Estimate(0.5, *wilson(1, 2), 2)


def test_a_tie_counts_by_parts_whatever_the_order() -> None:
    rows = [(0, 1.0, "4"), (0, 0.0, "5"), (0, 0.0, "6")]
    for order in (rows, rows[::-1]):
        found = vote(*order)
        assert found is not None
        assert found.value == pytest.approx(1 / 3)


def test_what_is_unreadable_has_no_vote() -> None:
    found = vote((0, 0.0, None), (0, 0.0, None), (0, 1.0, "4"))
    assert found is not None
    assert found.value == 1.0


def test_a_question_whose_answers_are_all_unreadable_has_a_wrong_majority_and_one_without_verdicts_has_none() -> None:
    found = vote((0, 1.0, "4"), (0, 1.0, "4"), (1, 0.0, None), (1, 0.0, None), (2, None, None), (2, None, None))
    assert found is not None
    assert (found.value, found.questions) == (0.5, 2)


def test_an_answer_that_is_right_only_sometimes_counts_by_the_share() -> None:
    found = vote((0, 1.0, "4"), (0, 0.0, "4"))
    assert found is not None
    assert found.value == 0.5


def test_a_verifier_that_reads_no_answers_out_defines_no_majority() -> None:
    assert vote((0, 1.0, None), (0, 1.0, None)) is None


def test_pass_at_k_and_the_average() -> None:
    right = [[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]
    rows = [(g, float(each), str(each)) for g, own in enumerate(right) for each in own]
    found = figures_of(answers(*rows), 3)
    assert found["avg"].estimate().value == 5 / 12
    for k in (1, 2, 4):
        each = [np.mean([max(chosen) for chosen in combinations(own, k)]) for own in right]
        assert found[f"pass@{k}"].estimate().value == pytest.approx(np.mean(each))
    assert "pass@8" not in found
    average, first = found["avg"].estimate(), found["pass@1"].estimate()
    assert (average.low, average.high) == pytest.approx((first.low, first.high))


def test_verdicts_without_a_reward_are_in_no_accuracy() -> None:
    found = figures_of(answers((0, 1.0, "4"), (0, None, None), (1, None, None), (1, None, None)), 2)
    assert found["avg"].estimate() == Estimate(1.0, *wilson(1, 1), 1)
    assert found["unparsed"].estimate().value == 0.0


def test_nothing_with_a_reward_is_no_accuracy() -> None:
    found = figures_of(answers((0, None, None)), 1)
    assert found["avg"].estimate() == Estimate(None, None, None, 0)


def test_greedy_answers_stand_apart() -> None:
    greedy = np.array([False, False, True])
    found = figures_of(answers((0, 1.0, "4"), (0, 1.0, "4"), (0, 0.0, "5"), greedy_N=greedy), 1)
    assert (found["avg"].estimate().value, found["greedy"].estimate().value) == (1.0, 0.0)
    only = figures_of(answers((0, 1.0, "4"), (1, 0.0, None), greedy_N=np.ones(2, dtype=bool)), 2)
    assert "avg" not in only
    assert only["greedy"].estimate() == Estimate(0.5, *wilson(1, 2), 2)
    assert only["unparsed"].estimate().value == 0.5


def test_lengths_that_are_unknown_are_left_out() -> None:
    rows = [(0, 1.0, "4"), (1, 1.0, "4"), (2, 1.0, "4")]
    found = figures_of(answers(*rows, tokens_N=np.array([3.0, 5.0, np.nan]), truncated_N=np.array([1.0, 0, np.nan])), 3)
    assert (found["tokens"].estimate().value, found["tokens"].estimate().questions) == (4.0, 2)
    assert found["truncated"].estimate().value == 0.5
    unknown = figures_of(answers(*rows, tokens_N=np.full(3, np.nan), truncated_N=np.full(3, np.nan)), 3)
    assert not {"tokens", "truncated"} & unknown.keys()


def test_a_figure_of_some_questions() -> None:
    figure = figures_of(answers((0, 1.0, "4"), (1, 0.0, "5"), (2, 0.0, "6")), 3)["avg"]
    assert figure.estimate(np.array([True, True, False])) == Estimate(0.5, *wilson(1, 2), 2)
    assert figure.estimate(np.zeros(3, dtype=bool)).value is None


def test_rewards_beyond_0_and_1_have_an_interval_of_a_mean() -> None:
    found = figures_of(answers((0, 2.0, "4"), (1, -1.0, "5")), 2)
    assert found["reward"].estimate().value == 0.5
    low, high = found["reward"].estimate().low, found["reward"].estimate().high
    assert low is not None
    assert high is not None
    assert low < -1 < 2 < high
