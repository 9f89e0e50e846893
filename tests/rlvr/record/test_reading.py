"""One reader of rows: records and foreign files alike, upgraded, joined with sidecars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlvr.record
from rlvr.errors import DataError, RequestError
from rlvr.record.item import item_of
from rlvr.record.rows import FieldError, Row, row_of
from rlvr.record.schema import SCHEMA_VERSION, Message, Rollout, Score, Task
from rlvr.record.store import write_rollouts

OLD = Score(status="graded", reward=1.0, verifier="math", version="1")
RECORD = Rollout(
    id="r",
    segment=2,
    group_id="g",
    messages=(Message(role="user", content="1+1?"),),
    completion="2",
    task=Task(answer="2", extra={"level": 3}),
    token_ids=(1, 2),
    loss_mask=(False, True),
    scores=(OLD,),
)


def put(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def told(row: Row) -> tuple[Any, ...]:
    return row.id, row.segment, row.group, row.prompt, row.completion, row.gold, dict(row.extra)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_record_is_a_row(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.{ending}"
    write_rollouts(path, [RECORD])
    (row,) = rlvr.record.open(path)
    assert told(row) == ("r", 2, "g", [{"role": "user", "content": "1+1?"}], "2", "2", {"level": 3})
    assert row.is_record
    assert [score["reward"] for score in row.scores] == [1.0]
    assert row.where == f"{path}, {'row' if ending == 'parquet' else 'line'} 1"
    assert row.values["schema_version"] == SCHEMA_VERSION
    assert item_of(row, wants_rollout=True).rollout == RECORD


def test_a_foreign_row_is_a_row(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "2.0"}]
    row = {"uid": 7, "group_id": 1.50, "prompt": "1+1?", "response": chat, "answer": 2.0, "level": 3}
    path = put(tmp_path / "in.jsonl", row)
    (read,) = rlvr.record.open(path, mapping={"completion": "response", "id": "uid"})
    extra = {"uid": 7, "response": chat, "level": 3}
    assert told(read) == ("7", 0, "1.5", "1+1?", "2.0", "2.0", extra)
    assert not read.is_record
    assert read.scores == []
    with pytest.raises(RequestError, match="there is no target 'completions'; did you mean 'completion'"):
        list(rlvr.record.open(path, mapping={"completions": "response"}))


def test_several_files_of_several_kinds_are_one_stream(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "a.parquet", [RECORD])
    put(tmp_path / "b.jsonl", {"input": "q", "output": "c", "gts": "1", "score": 0.0, "step": 1}, {"completion": "d"})
    rows = list(rlvr.record.open(tmp_path))
    assert [row.completion for row in rows] == ["2", "c", None]
    assert [row.gold for row in rows] == ["2", "1", None]
    with pytest.raises(RequestError, match="does not exist"):
        rlvr.record.open(tmp_path / "none.jsonl")


def test_sidecars_are_joined_by_id_and_segment(tmp_path: Path) -> None:
    path, side = tmp_path / "in.jsonl", tmp_path / "side.jsonl"
    write_rollouts(path, [RECORD, RECORD.model_copy(update={"segment": 3})])
    put(side, {"id": "r", "segment": 3, "scores": [{"verifier": "new", "status": "graded", "reward": 0.0}]})
    rows = list(rlvr.record.open(path, sidecars=side))
    assert [[score["verifier"] for score in row.scores] for row in rows] == [["math"], ["math", "new"]]
    put(side, {"id": "other", "scores": [{"verifier": "new", "status": "error"}]})
    with pytest.raises(DataError, match=r"side\.jsonl has none of the ids of the rows"):
        list(rlvr.record.open(path, sidecars=side))


def test_a_foreign_row_with_a_column_segment_of_its_own_gets_its_scores(tmp_path: Path) -> None:
    """`rlvr score --scores-only` writes segment 0 for it, whatever its own column means."""
    path = put(tmp_path / "in.jsonl", {"id": "x", "segment": 5})
    side = put(tmp_path / "side.jsonl", {"id": "x", "segment": 0, "scores": [{"verifier": "v", "status": "error"}]})
    (row,) = rlvr.record.open(path, sidecars=side)
    assert [score["verifier"] for score in row.scores] == ["v"]


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        ({"id": ["x"]}, "id", "here: 'id' is a list: expected text or a number"),
        ({"answer": {"is": 4}}, "gold", "here: 'answer' is an object: expected text or a number"),
        ({"completion": [1]}, "completion", "here: 'completion' is a list: expected text, a number or messages"),
        ({"prompt": [1]}, "prompt", "here: 'prompt' is a list: expected text or messages"),
        ({"scores": 5}, "scores", "here: the column 'scores' is a number and not a list of scores: rename it"),
        ({"schema_version": 1, "id": 7}, "id", "here: id is a number"),
        ({"schema_version": 1}, "id", "here: id is null"),
        ({"schema_version": 1, "segment": [0]}, "segment", "here: segment is a list"),
        ({"schema_version": 1, "group_id": 5}, "group", "here: group_id is a number"),
        ({"schema_version": 1, "task": 5}, "gold", "here: task is a number"),
        ({"schema_version": 1, "task": {"answer": 5}}, "gold", "here: task.answer is a number"),
        ({"schema_version": 1, "completion": 5}, "completion", "here: completion is a number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_of_its_field(values: dict[str, Any], name: str, message: str) -> None:
    row = row_of(values, "here")
    with pytest.raises(DataError) as caught:
        getattr(row, name)
    assert str(caught.value) == message
    assert isinstance(caught.value, FieldError) == (not row.is_record and name != "scores")


def test_an_unknown_version_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "in.jsonl", {"schema_version": 99, "id": "x"})
    with pytest.raises(DataError, match="line 1 was written with version 99"):
        list(rlvr.record.open(path))
