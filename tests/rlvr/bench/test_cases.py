"""Labeled cases: valid rows, and messages about wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr.bench.cases import Case, read_cases
from rlvr.errors import DataError, RequestError, RlvrError


def say(answer: str) -> str:
    return f"<{answer}>"


def read(tmp_path: Path, *rows: Any) -> list[Case]:
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return list(read_cases(file, say))


def test_a_bare_answer_is_said_and_a_completion_is_left_alone(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        {"gold": "1", "pred": "2", "expected": False, "category": "a", "prompt": "?", "level": 3},
        {"gold": 1, "completion": "so 1", "expected": True},
        {"gold": "1", "pred": "so 1", "form": "text", "expected": True},
        {"gold": "1", "completion": "", "expected": False},
    ) == [
        Case("1", "<2>", False, "a", answer="2", prompt="?", extra={"level": 3}),
        Case("1", "so 1", True),
        Case("1", "so 1", True),
        Case("1", "", False),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1]", "line 1 is a list: a case is an object"),
        ("{", "line 1 is not JSON"),
        ({"pred": "1", "expected": True}, "there is no 'gold'"),
        ({"golds": "1", "pred": "1", "expected": True}, "there is no 'gold'; did you mean 'golds'?"),
        ({"gold": "1", "pred": "1"}, "there is no 'expected'"),
        ({"gold": "1", "pred": "1", "expected": None}, "'expected' is null"),
        ({"gold": "1", "pred": "1", "expected": 1}, "'expected' is a number: write true or false"),
        ({"gold": "1", "expected": True}, "has neither of 'completion'"),
        ({"gold": "1", "pred": "1", "completion": "1", "expected": True}, "has both of 'completion'"),
        ({"gold": 0.5, "pred": "1", "expected": True}, "'gold' is a number: expected text, in quotes"),
        ({"gold": True, "pred": "1", "expected": True}, "'gold' is a bool"),
        ({"gold": "1", "pred": ["1"], "expected": True}, "'pred' is a list"),
        ({"gold": "1", "pred": "1", "form": "boxed", "expected": True}, "'form' is 'boxed'; known: bare, text"),
    ],
)
def test_a_row_at_fault_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, row)
    assert message in str(error.value)
    assert f"{tmp_path}/cases.jsonl, line 1" in str(error.value)


def test_a_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        list(read_cases(tmp_path / "no.jsonl", say))
    with pytest.raises(RlvrError, match="has no cases"):
        read(tmp_path, "")
