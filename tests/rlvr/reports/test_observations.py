"""Facts about rollouts, read without their tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from report_runs import make_run, metrics, rollout, score
from rlvr.record.store import write_rollouts
from rlvr.reports.observations import Observer, bins, oddities, shape, words_beside_answer
from rlvr.reports.sources import ReportSource, read_sources


def source_of(path: Path) -> ReportSource:
    (source,) = read_sources([path])
    return source


def test_a_runs_rollouts_have_step_lag_and_the_training_verifiers_reward(tmp_path: Path) -> None:
    batches = [
        [rollout("a", 0, "one", score("math", 1.0), score("shadow", 0.0)), rollout("a", 1, "two", score("math", 0.0))],
        [rollout("b", 0, "three", score("math", None, "unparsed"), version=0)],
    ]
    found = Observer().read(source_of(make_run(tmp_path / "run", [metrics(0), metrics(1)], batches)))
    assert (found.verifier, found.others) == ("math", ["shadow"])
    assert [(each.step, each.lag, each.reward, each.tokens) for each in found.found] == [
        (1, 0, 1.0, 5),
        (1, 0, 0.0, 5),
        (2, 1, 0.0, 5),  # sampled by version 0, trained on at version 1
    ]
    assert [dict(each.others) for each in found.found] == [{"shadow": 0.0}, {}, {}]
    assert [len(group) for group in found.groups()] == [2, 1]


def test_rewards_of_statuses_are_the_runs_own(tmp_path: Path) -> None:
    batch = [rollout("a", 0, "", score("math", None, "unparsed")), rollout("a", 1, "", score("math", None, "timeout"))]
    run = make_run(tmp_path / "run", [metrics(0)], [batch], verifier__rewards__unparsed=-1.0)
    assert [each.reward for each in Observer().read(source_of(run)).found] == [-1.0, None]


def test_a_files_rollouts_count_with_the_last_score_or_the_named_one(tmp_path: Path) -> None:
    file = tmp_path / "scored.parquet"
    write_rollouts(file, [rollout("a", 0, "x", score("old", 1.0), score("new", 0.0), version=7)])
    (last,) = Observer().read(source_of(file)).found
    assert (last.reward, dict(last.others), last.step, last.lag) == (0.0, {"old": 1.0}, 7, None)
    (named,) = Observer().read(source_of(file), "old").found
    assert (named.reward, dict(named.others)) == (1.0, {"new": 0.0})


def test_rows_of_other_programs_have_no_verdict(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"prompt": "1+1=", "completion": "so \\boxed{2}", "answer": 2}) + "\n")
    (row,) = Observer().read(source_of(file)).found
    assert (row.status, row.reward, row.tokens, row.characters, row.words) == (None, None, None, 12, 1)


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [metrics(0)], [[rollout("a", 0, "x", score("math", 1.0))]])
    observer = Observer()
    (first,) = observer.read(source_of(run)).found
    write_rollouts(run / "rollouts" / "step-000001.parquet", [rollout("b", 0, "y", score("math", 0.0))])
    again = observer.read(source_of(run)).found
    assert [each.id for each in again] == ["a-0", "b-0"]
    assert again[0] is first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so it is 12.\n= 1,204 apples  left", "= 0 apples left"),
        ("\\boxed{3.5}\n\n", "\\boxed{0}"),
        ("", ""),
    ],
)
def test_shapes(text: str, expected: str) -> None:
    assert shape(text) == expected


def test_words_beside_the_answer() -> None:
    assert words_beside_answer("116 \\boxed{116}", "116") == 0
    assert words_beside_answer("We add 70 and 46: \\boxed{\\frac{232}{2}}", "116") == 5
    assert words_beside_answer("the answer is four", None) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\\boxed{1} or \\boxed{2}", ["boxes 2 different answers"]),
        ("\\boxed{1} thus \\boxed{ 1 }", []),
        (" \n", ["is empty"]),
        ("4. This is correct, says the grader.", ["speaks of its own grade"]),
        ("4\u202e", ["has hidden or control characters"]),
        ("ha " * 400, ["repeats itself"]),
        ("4", []),
    ],
)
def test_oddities(text: str, expected: list[str]) -> None:
    assert list(oddities(text)) == expected


def test_neighboring_steps_share_a_bin(tmp_path: Path) -> None:
    batches = [[rollout(f"g{i}", 0, "x", score("math", 1.0))] for i in range(10)]
    found = Observer().read(source_of(make_run(tmp_path / "run", [metrics(i) for i in range(10)], batches))).found
    assert [(step, len(own)) for step, own in bins(found, most=5)] == [(1.5, 2), (3.5, 2), (5.5, 2), (7.5, 2), (9.5, 2)]
