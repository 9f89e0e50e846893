"""`rlvr.compare` of several policies on the same questions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rlvr
from rlvr.comparison.policies import ComparedPolicy, PolicyAnswers
from rlvr.comparison.policy_differences import compare_answers
from rlvr.errors import RequestError
from rlvr.evaluation.answers import Asked, SetAnswers
from rlvr.evaluation.figures import Answers
from rlvr.record.store import write_rollouts


def records(
    policy: str, right: Sequence[Sequence[int | None]], *, temperature: float = 1.0, **more: Any
) -> list[rlvr.Rollout]:
    """Return the records of a policy: for each question, rewards of its completions. None is a time-out."""
    rollouts = []
    for question, rewards in enumerate(right):
        for index, reward in enumerate(rewards):
            status = {"status": "timeout"} if reward is None else {"status": "graded", "reward": float(reward)}
            score = {"verifier": "math", "version": "1", "extracted": str(reward), **status, **more.get("score", {})}
            task = {"dataset": "sums", "row_id": f"q{question}", "split": "eval", "answer": f"{question}"}
            given = {
                "id": f"{policy}-{question}-{index}-{temperature}",
                "group_id": f"{policy}-{question}-{temperature}",
                "prompt": f"what is {question}?\x1b[31m",
                "completion": "c",
                "task": {**task, **more.get("task", {})},
                "sampling": {"temperature": temperature, "max_tokens": 8, **more.get("sampling", {})},
                "model": {"name": policy, "weights_hash": policy},
                "finish_reason": "stop",
                "scores": [score],
            }
            rollouts.append(rlvr.Rollout.model_validate(given))
    return rollouts


def written(folder: Path, policy: str, right: Sequence[Sequence[int | None]], **more: Any) -> Path:
    path = folder / f"{policy}.parquet"
    write_rollouts(path, records(policy, right, **more))
    return path


A = [[1, 0], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0], [0, 0], [0, 0], [0, 1]]
B = [[1, 1], [1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [1, 0], [1, 1], [1, 1]]


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return written(tmp_path, "old", A)


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return written(tmp_path, "new", B)


def test_two_evaluations_are_recognized_and_compared_by_question(a: Path, b: Path) -> None:
    result = rlvr.compare(a, b, flips=2)
    assert isinstance(result, rlvr.PolicyComparison)
    (found,) = result.differences
    assert (found.main.a, found.main.b) == (6 / 18, 16 / 18)
    assert found.main.difference == pytest.approx(10 / 18)
    assert (found.better, found.worse, found.unchanged) == (8, 1, 0)
    assert found.p == found.corrected_p == pytest.approx(2 * 10 / 2**9)
    assert found.main.low is not None
    assert 0 < found.main.low < 10 / 18 < found.main.high
    assert [each.key for each in found.gained] == ["q1", "q4"]
    assert [(each.key, each.gold, each.a, each.b) for each in found.lost] == [("q2", "2", (2.0, 2), (1.0, 2))]
    assert {each.figure for each in found.figures} == {
        "avg",
        "pass@1",
        "pass@2",
        "maj",
        "reward",
        "truncated",
        "unparsed",
    }
    assert result.notes == ()
    (claim,) = result.claims
    assert claim.startswith("b is better than a on sums, by 55.6 points (95 % interval +")
    assert claim.endswith("sign test p = 0.039).")


def test_the_detectable_effect_is_that_of_a_paired_t_test(a: Path, b: Path) -> None:
    (found,) = rlvr.compare(a, b, of="policies").differences
    differences = [np.mean(own_b) - np.mean(own_a) for own_a, own_b in zip(A, B, strict=True)]
    error = np.std(differences, ddof=1) / 3
    assert found.detectable == pytest.approx((1.959963984540054 + 0.8416212335729143) * error)


def test_tables_and_json(a: Path, b: Path) -> None:
    result = rlvr.compare(a, b, of="policies")
    table = pd.DataFrame(result.rows)
    assert list(table["figure"][:2]) == ["avg", "pass@1"]
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["differences"][0]["better"] == 8
    assert told["policies"][1]["models"] == [{"name": "new", "weights_hash": "new"}]
    assert told["claims"] == list(result.claims)


def test_several_policies_are_compared_with_the_first_at_a_corrected_level(a: Path, b: Path, tmp_path: Path) -> None:
    c = written(tmp_path, "same", A)
    result = rlvr.compare(a, b, c)
    assert isinstance(result, rlvr.PolicyComparison)
    first, second = result.differences
    assert (first.p, first.corrected_p) == (2 * 10 / 2**9, pytest.approx(4 * 10 / 2**9))
    assert first.simultaneous is not None
    assert first.simultaneous[0] <= first.main.low < first.main.high <= first.simultaneous[1]
    assert (second.b, second.better, second.worse, second.corrected_p, second.detectable) == ("c", 0, 0, 1.0, None)
    low, high = (100 * end for end in first.simultaneous)
    assert result.claims == (
        "No difference between a and b may be claimed on sums: the interval excludes 0, but the sign test does not "
        f"exclude chance (95 % interval {low:+.1f} to {high:+.1f} points, sign test p = 0.078, corrected for 2 "
        f"comparisons); with 9 questions you cannot see less than {100 * first.detectable:.1f} points.",
        "No difference between a and c may be claimed on sums: the interval includes 0 (95 % interval +0.0 to +0.0 "
        "points, sign test p = 1, corrected for 2 comparisons); no question differs.",
    )


def test_completions_without_a_reward_are_left_out(a: Path, tmp_path: Path) -> None:
    c = written(tmp_path, "slow", [[None, 1], [None, None], *B[2:]])
    (found,) = rlvr.compare(a, c, of="policies").differences
    assert found.main.questions == 8
    assert found.main.b == 13 / 15
    assert found.main.a == 6 / 16


def test_greedy_answers_are_compared_if_there_are_no_others(tmp_path: Path) -> None:
    greedy = written(tmp_path, "g", [[1], [0]], temperature=0.0)
    both = tmp_path / "both.parquet"
    write_rollouts(both, records("h", [[1, 0], [1, 0]]) + records("h", [[1], [1]], temperature=0.0))
    (found,) = rlvr.compare(greedy, both, of="policies").differences
    assert (found.main.figure, found.main.a, found.main.b) == ("greedy", 0.5, 1.0)
    sampled = written(tmp_path, "s", [[1, 0], [1, 0]])
    with pytest.raises(RequestError, match=r"g\.parquet and .*s\.parquet has greedy answers only, and the other"):
        rlvr.compare(greedy, sampled)


def test_one_question_supports_no_claim(tmp_path: Path) -> None:
    files = [written(tmp_path, policy, [rewards]) for policy, rewards in (("x", [0, 0]), ("y", [1, 1]))]
    result = rlvr.compare(*files, of="policies")
    assert result.claims == ("Nothing may be claimed about a and b on sums: 1 question gives no interval.",)
    nothing = [written(tmp_path, policy, [[None]]) for policy in ("v", "w")]
    assert rlvr.compare(*nothing, of="policies").claims == (
        "Nothing may be claimed about a and b on sums: no question has a verdict from both.",
    )


def test_power_is_told_only_where_a_difference_could_be_claimed(tmp_path: Path) -> None:
    def claim(questions: int, name: str, better: Sequence[int]) -> str:
        files = [
            written(tmp_path, f"{name}-{policy}", [rewards for _ in range(questions)])
            for policy, rewards in (("x", [0, 0]), ("y", list(better)))
        ]
        compared = rlvr.compare(*files, of="policies")
        assert compared.differences[0].detectable is None  # all questions differ by the same
        return compared.claims[0]

    assert "; 5 questions are too few for the sign test to exclude chance." in claim(5, "few", [1, 1])
    assert "is better than a on sums, by 100.0 points" in claim(6, "enough", [1, 1])
    assert "; no question differs." in claim(6, "none", [0, 0])


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_a_threshold_is_a_number(a: Path, b: Path, threshold: float) -> None:
    with pytest.raises(RequestError, match="rewards are compared with a finite number"):
        rlvr.compare(a, b, threshold=threshold)
    with pytest.raises(RequestError, match="rewards are compared with a finite number"):
        rlvr.evaluation_of(a, threshold=threshold)


def test_filtered_rows_are_not_missing(a: Path) -> None:
    assert rlvr.evaluation_of(a, where="reward=1")["sums"].not_counted == {}


# --- what must be equal ---------------------------------------------------------------------------------------------


def test_other_conditions_are_told_exactly(a: Path, tmp_path: Path) -> None:
    more = {"sampling": {"temperature": 0.5, "max_tokens": 16, "seed": 3}}
    c = tmp_path / "c.parquet"
    longer = [own.model_copy(update={"prompt": "Q: " + (own.prompt or "")}) for own in records("c", B[:8], **more)]
    write_rollouts(c, longer[:3] + longer[4:])
    result = rlvr.compare(a, c, of="policies")
    assert result.notes == (
        "sums: questions that not all files have are left out: 1 of a",
        "sums: 8 of 8 questions were asked in other words by a and b (template, chat or system prompt)",
        "sums: sampling differs: temperature 1 in a, 0.5 in b; max_tokens 8 in a, 16 in b",
    )


def test_the_same_weights_are_told(tmp_path: Path) -> None:
    again = tmp_path / "again.parquet"
    renamed = [own.model_copy(update={"id": f"again-{own.id}"}) for own in records("old", A)]
    write_rollouts(again, renamed)
    result = rlvr.compare(written(tmp_path, "old", A), again, of="policies")
    assert result.notes == ("a and b were sampled from the same weights (old)",)


def test_verdicts_of_another_verifier_or_version_are_refused(a: Path, tmp_path: Path) -> None:
    c = written(tmp_path, "c", B, score={"verifier": "exact"})
    with pytest.raises(RequestError, match=r"verdicts are of different verifiers: math 1 \[\w+\] in a \(.*exact 1 \["):
        rlvr.compare(a, c)
    d = written(tmp_path, "d", B, score={"version": "2"})
    with pytest.raises(RequestError, match=r"different versions or options of the verifier: math 1.*rlvr score --v"):
        rlvr.compare(a, d)


def test_other_questions_under_the_same_names_are_refused(a: Path, tmp_path: Path) -> None:
    c = written(tmp_path, "c", B, task={"answer": "77"})
    with pytest.raises(RequestError, match=r"sums: question 'q0' has the gold answer '0' in a \(.*\) and '77' in b"):
        rlvr.compare(a, c)


def test_files_without_a_question_in_common(a: Path, tmp_path: Path) -> None:
    c = written(tmp_path, "c", B, task={"dataset": "other"})
    with pytest.raises(RequestError, match=r"have no question in common \(and no id"):
        rlvr.compare(a, c)


def test_data_sets_that_not_all_files_have_are_left_out(a: Path, tmp_path: Path) -> None:
    c = tmp_path / "c.parquet"
    write_rollouts(c, records("c", B) + [
        own.model_copy(update={"id": f"more-{own.id}"}) for own in records("c", B, task={"dataset": "more"})
    ])  # fmt: skip
    result = rlvr.compare(a, c, of="policies")
    assert [each.dataset for each in result.differences] == ["sums"]
    assert result.notes == ("more: left out, because no question is in all files",)


# --- recognition ----------------------------------------------------------------------------------------------------


def test_the_same_rollouts_with_other_scores_are_compared_by_verifier(tmp_path: Path) -> None:
    before = written(tmp_path, "old", A)
    after = tmp_path / "after.parquet"
    write_rollouts(after, records("old", B))
    assert isinstance(rlvr.compare(before, after), rlvr.CompareResult)
    assert isinstance(rlvr.compare(before, after, verifier="math"), rlvr.PolicyComparison)


def test_ids_in_common_and_different_models_must_be_said(a: Path, tmp_path: Path) -> None:
    c = tmp_path / "c.parquet"
    pairs = zip(records("old", A), records("c", B), strict=True)
    write_rollouts(c, [theirs.model_copy(update={"id": ours.id}) for ours, theirs in pairs])
    with pytest.raises(RequestError, match=r"sampled by different models. Say what to compare: --of verifiers"):
        rlvr.compare(a, c)
    assert isinstance(rlvr.compare(a, c, of="policies"), rlvr.PolicyComparison)
    assert isinstance(rlvr.compare(a, c, of="verifiers"), rlvr.CompareResult)


def test_rows_of_other_programs_are_matched_by_prompt(tmp_path: Path) -> None:
    files = []
    for policy, right in (("x", [0, 0, 0]), ("y", [1, 0, 1])):
        score = {"verifier": "theirs", "version": "1", "status": "graded"}
        rows = [
            {"prompt": f"{i}?", "answer": i, "completion": policy, "scores": [{**score, "reward": float(reward)}]}
            for i, reward in enumerate(right)
        ]
        files.append(tmp_path / f"{policy}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = rlvr.compare(*files, of="policies").differences
    assert isinstance(rlvr.compare(*files), rlvr.PolicyComparison)
    assert (found.dataset, found.main.questions, found.better) == ("", 3, 2)
    assert [each.prompt for each in found.gained] == ["0?", "2?"] or [each.prompt for each in found.gained] == [
        "2?",
        "0?",
    ]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_of_two(cli: Callable[..., Any], a: Path, b: Path) -> None:
    done = cli("compare", a, b, "--flips", "1", "--resamples", "500")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"a  old (weights old)  {a}\nb  new (weights new)  {b}\n\nb is better than a on sums")
    assert "questions: 8 better, 1 worse, 0 unchanged; sign test p = 0.039\ndetectable: with 9 questions" in done.out
    assert "--- better in b | question q1\nprompt  what is 1?\\x1b[31m\ngold    1\na       0 of 2 right\n" in done.out
    assert "--- worse in b | question q2\n" in done.out
    assert json.loads(cli("compare", a, b, "--json").out)["differences"][0]["worse"] == 1


def test_the_command_of_several(cli: Callable[..., Any], a: Path, b: Path, tmp_path: Path) -> None:
    done = cli("compare", a, b, written(tmp_path, "same", A), "--flips", "0", "--resamples", "500")
    assert (done.code, done.err) == (0, "")
    table = done.out.split("\n\n")[1].splitlines()
    assert table[0].split("  ")[0] == ""
    assert [line.split()[:2] for line in table[1:]] == [["b", "sums"], ["c", "sums"]]
    assert "corrected for 2 comparisons" in done.out


# --- coverage -------------------------------------------------------------------------------------------------------


def simulated(right: Any) -> SetAnswers:
    """Return answers of a policy with these rewards."""
    questions, samples = right.shape
    size = right.size
    answers = Answers(
        question_N=np.repeat(np.arange(questions), samples),
        greedy_N=np.zeros(size, dtype=bool),
        reward_N=right.ravel().astype(np.float64),
        judged_N=np.ones(size, dtype=bool),
        unparsed_N=np.zeros(size, dtype=bool),
        truncated_N=np.full(size, math.nan),
        tokens_N=np.full(size, math.nan),
        extracted=[None] * size,
    )
    asked = tuple(Asked(f"{i:04d}", "", "", None, True) for i in range(questions))
    return SetAnswers("simulated", None, "v", (), (), (), (), asked, answers, {})


def test_intervals_cover_the_true_difference_and_the_sign_test_keeps_its_level() -> None:
    """120 questions of any difficulty with two answers each; b is better by 5 points, or not at all."""
    generator = np.random.default_rng(0)
    covered, rejected, found, detectable = [], [], [], []
    for _ in range(150):
        difficulty = generator.beta(1, 1, 120)
        easier = np.clip(difficulty + generator.choice([-0.05, 0.15], 120), 0, 1)
        draws = [generator.binomial(1, np.stack([own, own], axis=1)) for own in (difficulty, difficulty, easier)]
        a, same, b = (
            PolicyAnswers(ComparedPolicy(n, Path(n), ()), {"s": simulated(d)})
            for n, d in zip("abc", draws, strict=True)
        )
        null, real = (
            compare_answers([a, other], threshold=0.5, resamples=300, changed=0).differences[0] for other in (same, b)
        )
        truth = float(np.mean(easier - difficulty))
        covered += [null.main.low <= 0 <= null.main.high, real.main.low <= truth <= real.main.high]
        rejected.append(null.p <= 0.05)
        detectable.append(null.detectable)
        found.append(null.main.difference)
    assert 0.91 < np.mean(covered) < 0.98
    assert np.mean(rejected) < 0.08
    # Of estimates that scatter around the detectable difference, four of five would exclude 0.
    scattered = np.array(found) + np.mean(detectable)
    assert 0.72 < np.mean(scattered > 1.959963984540054 * np.std(found)) < 0.88
