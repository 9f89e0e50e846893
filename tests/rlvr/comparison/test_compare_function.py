"""`rlvr.compare`: one or two files, and a result for notebooks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rlvr
from rlvr.errors import RequestError


def graded(verifier: str, reward: float) -> dict[str, Any]:
    return {"verifier": verifier, "version": "1", "status": "graded", "reward": reward}


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Four groups of two; `b` judges the first rollout of each wrong."""
    path = tmp_path / "scored.jsonl"
    rows = [
        {"uid": str(i), "group_id": str(i // 2), "scores": [graded("a", 1.0), graded("b", float(i % 2))]}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_gives_a_result(scored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = rlvr.compare(scored, flips=2, resamples=100, mapping={"id": "uid"})
    assert capsys.readouterr() == ("", "")
    assert (result.a.verifier, result.b.verifier, result.a.file) == ("a", "b", scored)
    assert (result.comparison.rows, result.comparison.lost, result.comparison.gained) == (8, 4, 0)
    assert [flip.id for flip in result.flips] == ["0", "2"]
    table = pd.DataFrame(result.rows)
    assert list(table.columns) == ["figure", "k", "groups", "a", "b", "difference", "low", "high"]
    assert list(table["figure"]) == ["mean reward", "avg", "pass", "avg", "pass"]
    assert list(table["difference"][:2]) == [-0.5, -0.5]
    told = json.loads(json.dumps(result.to_dict()))
    assert told["matrix"]["right"] == {"right": 4, "wrong": 4} | dict.fromkeys(list(told["matrix"]["right"])[2:], 0)
    assert told["at_k"][1]["pass"]["b"] == 1.0


def test_stored_rewards_that_overflow_a_sum_count_as_errors(tmp_path: Path) -> None:
    path = tmp_path / "scored.jsonl"
    rewards = [1.7e308, 1.7e308, 1.0, 0.0]
    rows = [
        {"id": str(i), "group_id": str(i // 2), "scores": [graded("a", 1.0), graded("b", reward)]}
        for i, reward in enumerate(rewards)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = rlvr.compare(path, resamples=10)
    assert (result.comparison.dropped_a, result.comparison.dropped_b) == (0, 2)
    assert result.to_dict()["matrix"]["right"]["error"] == 2
    assert math.isclose(result.comparison.reward.b, 0.5)


def test_only_rows_that_meet_conditions_are_compared(scored: Path) -> None:
    def rows(*where: str) -> tuple[int, int]:
        result = rlvr.compare(scored, flips=2, resamples=10, mapping={"id": "uid"}, where=where)
        assert {flip.group_id for flip in result.flips} <= {"0", "1", "2", "3"}
        return result.comparison.rows, result.comparison.lost

    assert rows("uid>3") == (4, 2)
    assert rows("verifier=b", "reward=0") == (4, 4), "one and the same score"
    assert rows("group_id=1") == (2, 1)
    with pytest.raises(RequestError, match=r"scored\.jsonl has no row that meets --where uid>9"):
        rows("uid>9")
    with pytest.raises(RequestError, match="has no field 'udi'; did you mean 'uid'"):
        rows("udi>3")


def test_two_files_are_matched_by_id(scored: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"uid": "3", "scores": [graded("c", 0.0)]}) + "\n")
    result = rlvr.compare(scored, other, a="a", mapping={"id": "uid"})
    assert (result.b.verifier, result.only_a, result.only_b, result.comparison.rows) == ("c", 7, 0, 1)
    other.write_text(json.dumps({"uid": "x", "scores": [graded("c", 0.0)]}) + "\n")
    with pytest.raises(RequestError, match=r"scored\.jsonl and .*other\.jsonl have no id in common"):
        rlvr.compare(scored, other, a="a", mapping={"id": "uid"})
