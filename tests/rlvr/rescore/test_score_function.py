"""`rlvr.score`: rows of Python values to scores, files to files and a result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rlvr
from rlvr.errors import RequestError
from rlvr.rescore.score import ScoreProgress

MINE = """
def length(completion, task, *, weight: float = 1.0): return weight * len(completion)
def same(completion, task): return completion == task.answer
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    rows = [{"id": str(i), "output": "x" * i, "answer": "xx"} for i in range(600)]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    return tmp_path


class Events(rlvr.ScoreReporter):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def note(self, text: str) -> None:
        self.events.append(text)

    def start(self, total: int, replayed: int) -> None:
        self.events.append((total, replayed))

    def advance(self, progress: ScoreProgress) -> None:
        self.events.append((progress.rows, progress.total, progress.file.name))


def test_files_give_a_result(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = Events()
    result = rlvr.score(
        "in.jsonl",
        ["mine.py:length", "mine.py:same"],
        out="out.parquet",
        options={"mine.py:length": {"weight": 2}},
        mapping={"completion": "output"},
        where=["id!=0"],
        skip_bad_lines=True,
        workers=0,
        reporter=events,
    )
    assert capsys.readouterr() == ("", "")
    assert result.files == (Path("out.parquet"),)
    assert (result.scored, result.replayed, result.bad_lines) == (599, 0, 1)
    assert result.first_bad_line is not None
    assert result.first_bad_line.startswith("in.jsonl, line 601 is not JSON")
    length, same = result.verifiers
    assert (length.verifier, length.mean_reward, length.counted) == ("mine:length", 600.0, 599)
    assert (same.statuses, same.error_rate) == ({"graded": 599}, 0.0)
    table = pd.DataFrame(result.rows)
    assert list(table["verifier"]) == ["mine:length", "mine:same"]
    assert list(table["graded"]) == [599, 599]
    assert json.loads(json.dumps(result.to_dict()))["files"] == ["out.parquet"]
    assert events.events == [(599, 0), (511, 599, "in.jsonl"), (599, 599, "in.jsonl")]
    assert [len(row.scores) for row in rlvr.record.open("out.parquet")] == [2] * 599


def test_notes_say_what_was_recognized(folder: Path) -> None:
    row = {"input": "q", "output": "xx", "gts": "xx", "score": 0.0, "step": 1}
    Path("dump.jsonl").write_text(json.dumps(row) + "\n")
    result = rlvr.score(Path("dump.jsonl"), "mine.py:same", out=Path("out.jsonl"), workers=0)
    assert result.notes == ("recognized as verl's dump: completion=output, answer=gts, prompt=input",)


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ("in.jsonl", {}, "say where to write them with out="),
        ([{"completion": "x"}], {"out": "out.jsonl"}, "rows are files"),
        ([{"completion": "x"}], {"limit": 3}, "say where to write them with out="),
        ("in.jsonl", {"out": "out.jsonl", "shard": (5, 4)}, "--shard 5/4: write I/N"),
        ("in.jsonl", {"out": "out.jsonl", "where": "n"}, "expected FIELD OP VALUE"),
        ("in.jsonl", {"out": "out.jsonl", "mapping": {"answr": "x"}}, "there is no target 'answr'; did you mean"),
        ("none.jsonl", {"out": "out.jsonl"}, "none.jsonl does not exist"),
        ([], {"out": "out.jsonl"}, "name at least one file and one verifier"),
    ],
)
def test_a_wrong_request_is_an_error_before_anything_is_written(
    folder: Path, rows: Any, more: dict[str, Any], message: str
) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(RequestError, match=message):
        rlvr.score(rows, "mine.py:same", workers=0, **more)
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_options_of_an_unknown_verifier_are_refused(folder: Path) -> None:
    with pytest.raises(RequestError, match=r"options of 'length', which is none of the verifiers"):
        rlvr.score(
            "in.jsonl",
            ["mine.py:length", "mine.py:same"],
            out="out.jsonl",
            options={"length": {"weight": 2}},
            workers=0,
        )


def test_rows_of_a_file_can_be_scored_without_writing(folder: Path) -> None:
    Path("few.jsonl").write_text('{"output": "xx", "answer": "xx"}\n{"output": "x", "answer": "xx"}\n')
    rows = rlvr.record.open("few.jsonl", mapping={"completion": "output"})
    assert [score.reward for score in rlvr.score(rows, "mine.py:same", workers=0)] == [1.0, 0.0]
