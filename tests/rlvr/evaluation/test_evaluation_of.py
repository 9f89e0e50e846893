"""`rlvr.evaluation_of`: figures of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rlvr
from rlvr.data.prompts import load_source
from rlvr.errors import DataError, RequestError
from rlvr.protocols import SourceRequest
from rlvr.record.store import write_rollouts


def score(reward: float | None, verifier: str = "math", status: str | None = None, **more: Any) -> dict[str, Any]:
    status = status or ("graded" if reward is not None else "unparsed")
    return {"verifier": verifier, "version": "1", "status": status, "reward": reward, **more}


def rollout(question: int, index: int, *scores: dict[str, Any], temperature: float = 1.0, **more: Any) -> rlvr.Rollout:
    kind = "greedy" if temperature == 0 else "sampled"
    given = {
        "id": f"{kind}-{question}-{index}",
        "group_id": f"{kind}-{question}",
        "group_size": 2 if temperature else 1,
        "prompt": f"{question}+1=",
        "completion": "…",
        "task": {"dataset": "sums", "row_id": str(question), "split": "eval", "answer": str(question + 1)},
        "token_ids": [1, 2, 3],
        "loss_mask": [False, True, True],
        "behaviour_logprobs": [None, -0.5, -0.5],
        "policy_versions": [{"version": 0, "count": 2}],
        "sampling": {"temperature": temperature, "max_tokens": 4},
        "model": {"name": "m", "weights_hash": "0" * 16},
        "finish_reason": "length" if index else "stop",
        "scores": scores,
    }
    return rlvr.Rollout.model_validate({**given, **more})


ROLLOUTS = [
    rollout(0, 0, score(1.0, extracted="1")),
    rollout(0, 1, score(None)),
    rollout(1, 0, score(0.0, extracted="3")),
    rollout(1, 1, score(1.0, extracted="2")),
    rollout(2, 0, score(None, status="timeout")),  # the other of its two is missing
    rollout(0, 0, score(1.0, extracted="1"), temperature=0.0),
    rollout(1, 0, score(0.0, extracted="3"), temperature=0.0),
]


@pytest.fixture(params=["in.parquet", "in.jsonl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path: Path = tmp_path / request.param
    write_rollouts(path, ROLLOUTS)
    return path


def test_the_figures_of_a_file(file: Path) -> None:
    found = rlvr.evaluation_of(file)
    (own,) = found.sets
    assert (own.dataset, own.split, own.verifier, own.versions) == ("sums", "eval", "math", ("1",))
    assert (own.n, own.completions, len(own.questions)) == (2, 7, 3)
    assert own.statuses == {"graded": 5, "unparsed": 1, "timeout": 1, "missing": 1}
    assert own.not_counted == {"timeout": 1, "missing": 1}
    values = {name: each.value for name, each in own.figures.items()}
    assert values == {
        "avg": 0.5, "pass@1": 0.5, "pass@2": 1.0, "maj": 0.75, "greedy": 0.5, "reward": 0.5, "tokens": 2.0,
        "truncated": 0.4, "unparsed": 0.2,
    }  # fmt: skip
    assert (own.pass_at[2], own.accuracy, own.greedy) == (
        own.figures["pass@2"],
        own.figures["avg"],
        found["sums"].greedy,
    )
    assert found.models == ({"name": "m", "weights_hash": "0" * 16},)
    assert [(each["temperature"], each["max_tokens"]) for each in own.sampling] == [(1.0, 4)]
    first, second, third = own.questions
    assert (first.key, first.prompt, first.gold, first.right, first.counted, first.greedy) == (
        "0",
        "0+1=",
        "1",
        1,
        2,
        1.0,
    )
    assert (second.right, second.greedy) == (1, 0.0)
    assert (third.right, third.counted, third.greedy) == (0, 0, None)


def test_a_table_and_json(file: Path) -> None:
    found = rlvr.evaluation_of(file)
    table = pd.DataFrame(found.rows)
    assert list(table.columns) == ["dataset", "figure", "value", "low", "high", "questions"]
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["sets"][0]["figures"]["avg"]["value"] == 0.5
    assert told["sets"][0]["questions"] == 3


def test_the_last_score_of_the_named_verifier_counts(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_rollouts(path, [rollout(0, 0, score(0.0), score(0.0, "strict"), score(1.0))])
    with pytest.raises(RequestError, match=r"which verifier\? There are scores by math \(1\), strict \(1\): name one"):
        rlvr.evaluation_of(path)
    assert rlvr.evaluation_of(path, verifier="math")["sums"].accuracy.value == 1.0
    assert rlvr.evaluation_of(path, verifier="strict")["sums"].accuracy.value == 0.0
    with pytest.raises(RequestError, match="data set sums: no score by 'mine'"):
        rlvr.evaluation_of(path, verifier="mine")


def test_the_reward_that_a_sampler_gives_does_not_count_beside_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_rollouts(path, [rollout(0, 0, score(1.0), score(0.0, "sampler"))])
    assert rlvr.evaluation_of(path)["sums"].verifier == "math"
    write_rollouts(path, [rollout(0, 0, score(1.0, "sampler"))])
    assert rlvr.evaluation_of(path)["sums"].verifier == "sampler"


def test_a_file_without_answers_or_scores(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_rollouts(path, [rollout(0, 0)])
    with pytest.raises(RequestError, match="there are no scores; rlvr score adds some"):
        rlvr.evaluation_of(path)
    with pytest.raises(RequestError, match="there are no answers that meet the conditions"):
        rlvr.evaluation_of(path, where="task.answer=7")


def test_every_answer_counts_once(tmp_path: Path) -> None:
    path, again = tmp_path / "in.jsonl", tmp_path / "again.jsonl"
    write_rollouts(path, ROLLOUTS[:1])
    write_rollouts(again, ROLLOUTS[:1])
    with pytest.raises(DataError, match=r"again.jsonl, line 1: an earlier row has the id 'sampled-0-0' too"):
        rlvr.evaluation_of([path, again])


def test_segments_of_one_rollout_are_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    more = rollout(0, 0, score(1.0), segment=1)
    write_rollouts(path, [ROLLOUTS[0], more])
    found = rlvr.evaluation_of(path)["sums"]
    assert (found.completions, found.figures["tokens"].value) == (1, 4.0)


def test_one_question_with_two_gold_answers_is_two_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    task = {"dataset": "sums", "row_id": "0", "answer": "9"}
    write_rollouts(path, [ROLLOUTS[0], rollout(0, 1, score(1.0), task=task)])
    with pytest.raises(DataError, match=r"line 2: question '0', data set sums, has the gold answer '9', in an"):
        rlvr.evaluation_of(path)


def test_what_is_mixed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    other = rollout(0, 1, score(1.0, version="2"), temperature=0.5, model={"name": "other"})
    write_rollouts(path, [ROLLOUTS[0], other])
    assert rlvr.evaluation_of(path).notes == (
        "sums: the answers are of 2 models, and the figures mix them",
        "sums: the answers were sampled with 2 sets of parameters",
        "sums: the verdicts are of math 1, 2",
    )


def test_rows_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    rows = [
        {"uid": i, "prompt": f"{i // 2}+1?", "answer": i // 2 + 1, "completion": "c", "scores": [score(float(i < 2))]}
        for i in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (own,) = rlvr.evaluation_of(path, mapping={"id": "uid"}).sets
    assert (own.dataset, own.n, len(own.questions), own.accuracy.value) == ("", 2, 2, 0.5)
    assert "tokens" not in own.figures


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampling", "hot"), ("sampling", {"temperature": "hot"}), ("model", [1]), ("policy_versions", [{}]),
        ("finish_reason", 3), ("group_size", "many"), ("task", {"dataset": 7}), ("scores", [{"verifier": 1}]),
        ("group_id", 3),
    ],
)  # fmt: skip
def test_a_damaged_record_is_named(tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "in.jsonl"
    write_rollouts(path, ROLLOUTS[:1])
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}) + "\n")
    with pytest.raises(DataError, match=r"in\.jsonl, line 1"):
        rlvr.evaluation_of(path)


# --- contamination --------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A training set with question 1 of `ROLLOUTS`."""
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "1 + 1 =", "answer": "2"}\n{"question": "9+9=", "answer": "18"}\n')
    return path


def test_accuracy_with_and_without_the_questions_of_a_training_set(file: Path, trained: Path) -> None:
    texts = {str(question): f"{question}+1=" for question in range(3)}
    found = rlvr.evaluation_of(file, train_sets=trained, questions={"sums": texts})["sums"].contamination
    assert found is not None
    assert (found.train_sets, found.overlapping, found.figure) == ((str(trained),), {"1": 1.0}, "avg")
    assert (found.within.value, found.within.questions) == (0.5, 1)
    assert (found.without.value, found.without.questions) == (0.5, 1)
    assert json.loads(json.dumps(found.to_dict()))["overlapping"] == {"1": 1.0}


def test_questions_are_looked_up_in_the_data_set_that_the_records_name(tmp_path: Path, trained: Path) -> None:
    path = tmp_path / "in.jsonl"
    first = load_source("arithmetic", SourceRequest("eval", seed=0))[0]
    write_rollouts(path, [rollout(0, 0, score(1.0), prompt=first.text, task=first.task.model_dump())])
    trained.write_text(json.dumps({"question": first.text, "answer": first.task.answer}) + "\n")
    found = rlvr.evaluation_of(path, train_sets=[trained])["arithmetic"].contamination
    assert found is not None
    assert found.overlapping == {first.task.row_id: 1.0}
    assert found.without.value is None


def test_questions_that_cannot_be_looked_up(file: Path, tmp_path: Path, trained: Path) -> None:
    with pytest.raises(RequestError, match=r"looked up in the data set 'sums': there is no dataset 'sums'"):
        rlvr.evaluation_of(file, train_sets=trained)
    path = tmp_path / "other.jsonl"
    task = {"dataset": "arithmetic", "row_id": "no such row", "split": "eval", "answer": "1"}
    write_rollouts(path, [rollout(0, 0, score(1.0), task=task)])
    with pytest.raises(RequestError, match=r"'arithmetic', which lacks the question 'no such row'"):
        rlvr.evaluation_of(path, train_sets=trained)
    write_rollouts(path, [rollout(0, 0, score(1.0), task={**task, "split": None})])
    with pytest.raises(RequestError, match=r"the records name no split"):
        rlvr.evaluation_of(path, train_sets=trained)


def test_an_endless_training_set_cannot_be_searched(file: Path) -> None:
    with pytest.raises(RequestError, match="training set arithmetic has no end"):
        rlvr.evaluation_of(file, train_sets="arithmetic", questions={"sums": {"0": "0+1="}})
