"""Changes between two policies' answers to the same questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rlvr
from report_runs import make_run, metrics, rollout, score
from rlvr.record.schema import Sampling, Task
from rlvr.record.store import write_rollouts
from rlvr.reports.changes import HeldOutAnswer, WhatChanged, compared


def answer(text: str, *rewards: float) -> HeldOutAnswer:
    return HeldOutAnswer("prompt", "4", text, rewards)


def side(**answers: HeldOutAnswer) -> dict[tuple[str, str, bool], HeldOutAnswer]:
    return {("set", name, False): each for name, each in answers.items()}


def test_questions_are_gained_lost_or_neither() -> None:
    before = side(a=answer("no", 0.0), b=answer("yes", 1.0), c=answer("yes", 1.0), d=answer("no", 0.0))
    after = side(a=answer("now", 1.0), b=answer("no more", 0.0), c=answer("yes", 1.0), d=answer("no", 0.0))
    (found,) = compared(("step 0", before), ("step 9", after), 0)
    assert (found.both_right, found.gained, found.lost, found.both_wrong) == (1, 1, 1, 1)
    assert [(each.gained, each.before, each.after) for each in found.changed] == [
        (False, "yes", "no more"),
        (True, "no", "now"),
    ]


def test_several_completions_count_as_their_majority() -> None:
    (found,) = compared(("a", side(q=answer("x", 0.0, 0.0, 1.0))), ("b", side(q=answer("y", 1.0, 0.0, 1.0, 1.0))), 0)
    assert (found.gained, found.changed[0].shares) == (1, (1 / 3, 0.75))


def test_greedy_answers_are_compared_if_there_are_some() -> None:
    both = {("set", "q", False): answer("sampled", 1.0), ("set", "q", True): answer("greedy", 0.0)}
    (found,) = compared(("a", both), ("b", both), 0)
    assert (found.greedy, found.both_right, found.both_wrong) == (True, 0, 1)


def test_sides_without_a_question_in_common_have_no_changes() -> None:
    assert compared(("a", side(q=answer("x", 1.0))), ("b", side(other=answer("x", 1.0))), 0) == []
    assert compared(("a", side(q=answer("x"))), ("b", side(q=answer("x", 1.0))), 0) == []


def held_out(question: int, reward: float, version: int) -> Any:
    return rollout(
        f"run-eval-{version}-greedy_{question}",
        0,
        f"answer {version}",
        score("math", reward),
        prompt=f"question {question}",
        sampling=Sampling(temperature=0.0),
        task=Task(dataset="arithmetic", answer="4"),
    )


def test_a_run_shows_its_first_and_last_evaluation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [metrics(0)], [[rollout("a", 0, "x", score("math", 1.0))]])
    (run / "evaluations").mkdir()
    for step, rewards in ((0, (0.0, 1.0)), (5, (0.0, 0.0)), (10, (1.0, 1.0))):
        answers = [held_out(question, reward, step) for question, reward in enumerate(rewards)]
        write_rollouts(run / "evaluations" / f"step-{step:06d}.parquet", answers)
    found = rlvr.report(run)
    (change,) = found.changes
    assert isinstance(change, WhatChanged)
    assert (change.before, change.after, change.gained, change.both_right) == ("step 0", "step 10", 1, 1)
    (evaluation,) = found.evaluations
    assert evaluation.evaluation is not None
    greedy = evaluation.evaluation["arithmetic"].greedy
    assert greedy is not None
    assert (evaluation.about, greedy.value) == ("step 10", 1.0)


def test_files_are_compared_with_the_first(tmp_path: Path) -> None:
    for name, reward in (("old", 0.0), ("new", 1.0)):
        write_rollouts(tmp_path / f"{name}.parquet", [held_out(0, reward, 0)])
    found = rlvr.report([tmp_path / "old.parquet", tmp_path / "new.parquet"])
    (change,) = found.changes
    assert (change.before, change.after, change.gained) == ("old.parquet", "new.parquet", 1)
    assert len(found.evaluations) == 2


def test_data_sets_of_one_file_have_their_own_verifiers(tmp_path: Path) -> None:
    answers = [
        rollout(f"{name}-q", 0, "x", score(verifier, reward), task=Task(dataset=name, answer="4"), prompt=name)
        for name, verifier, reward in (("gsm8k", "math", 1.0), ("gpqa", "choice", 0.0))
    ]
    write_rollouts(tmp_path / "eval.parquet", answers)
    found = rlvr.report(tmp_path / "eval.parquet")
    assert found.shown.rows["status"] == ["right", "wrong"]
    (evaluation,) = found.evaluations
    assert evaluation.evaluation is not None
    assert [each.dataset for each in evaluation.evaluation.sets] == ["gsm8k", "gpqa"]
    named = rlvr.report(tmp_path / "eval.parquet", verifier="math")
    assert named.shown.rows["status"] == ["right", None]


def test_rollouts_that_are_no_evaluation_have_a_page_that_says_why(tmp_path: Path) -> None:
    twice = [rollout("q", 0, text, score("math", 1.0)) for text in ("one", "two")]
    write_rollouts(tmp_path / "twice.parquet", twice)
    found = rlvr.report(tmp_path / "twice.parquet")
    (evaluation,) = found.evaluations
    assert (evaluation.evaluation, "an earlier row has the id 'q-0' too" in evaluation.reason) == (None, True)
    assert found.shown.count == 2
