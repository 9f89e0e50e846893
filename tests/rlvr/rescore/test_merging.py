"""`rlvr score --merge`: the shards of a file become one file again, in the order of its rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rlvr
from rlvr.errors import RequestError
from rlvr.record.schema import Rollout, Task
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.rescore import merging

Run = Callable[..., Any]
ROWS = [{"completion": "x" * (i % 5 + 1), "answer": "xx", "n": i} for i in range(700)]


@pytest.fixture
def score(cli: Run) -> Run:
    """Function that runs `rlvr score` in this process, in a folder with `mine.py`."""
    Path("mine.py").write_text("def length(completion, task): return len(completion)\n")
    return lambda *arguments: cli("score", *arguments)


def shard(score: Run, source: str, count: int, ending: str, *arguments: str) -> None:
    Path("shards").mkdir(exist_ok=True)
    for i in range(1, count + 1):
        given = ["-v", "mine.py:length", "--workers", "0", "--shard", f"{i}/{count}", *arguments]
        assert score(source, "--out", f"shards/part-{i}.{ending}", *given).code == 0


def put(ending: str, rows: list[dict[str, Any]]) -> str:
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), "in.parquet", row_group_size=90)
    else:
        Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"in.{ending}"


def read(path: str) -> list[dict[str, Any]]:
    if path.endswith(".parquet"):
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_merged_shards_have_the_order_of_the_rows(score: Run, ending: str) -> None:
    source = put(ending, ROWS)
    shard(score, source, 11, ending)  # part-10 comes after part-9
    done = score("shards", "--merge", "--out", f"all.{ending}")
    assert done.code == 0, done.err
    assert done.out == f"rows         700 of 11 shards, scores by mine:length\nwritten to all.{ending}\n"
    merged = read(f"all.{ending}")
    assert [row["n"] for row in merged] == list(range(700))
    assert [row["scores"][-1]["reward"] for row in merged] == [float(i % 5 + 1) for i in range(700)]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_sidecars_are_merged_and_fit_the_whole_file(score: Run, ending: str) -> None:
    source = put("jsonl", ROWS[:50])
    shard(score, source, 3, ending, "--scores-only")
    result = rlvr.merge("shards", f"side.{ending}")
    assert (result.written, result.in_order, result.verifiers) == (50, True, ("mine:length",))
    joined = list(rlvr.record.open(source, sidecars=f"side.{ending}"))
    assert [row.scores[-1]["reward"] for row in joined] == [float(i % 5 + 1) for i in range(50)]


def test_records_stay_records(score: Run) -> None:
    task = Task(answer="x")
    rollouts = [Rollout(id=str(i), prompt="p", completion="x" * (i + 1), token_ids=(i,), task=task) for i in range(5)]
    write_rollouts("in.parquet", rollouts)
    shard(score, "in.parquet", 2, "parquet")
    rlvr.merge(["shards/part-1.parquet", "shards/part-2.parquet"], "all.parquet")
    merged = list(read_rollouts("all.parquet"))
    assert [each.model_copy(update={"scores": ()}) for each in merged] == rollouts
    assert [each.scores[0].reward for each in merged] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_shards_of_selected_rows_follow_each_other(score: Run) -> None:
    source = put("jsonl", ROWS[:40])
    shard(score, source, 3, "jsonl", "--where", "completion=x")
    done = score("shards/part-*.jsonl", "--merge", "--out", "all.jsonl", "--json")
    assert done.code == 0, done.err
    assert [row["n"] for row in read("all.jsonl")] == [0, 15, 30, 10, 25, 5, 20, 35]
    assert json.loads(done.out)["in_order"] is False
    assert done.err.startswith("rlvr: the sizes of the shards show that rows were selected")


def test_shards_without_any_row_are_refused(tmp_path: Path) -> None:
    shards = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    for path in shards:
        path.touch()
    with pytest.raises(RequestError, match=r"1\.jsonl, .*2\.jsonl have no rows"):
        rlvr.merge(shards, tmp_path / "all.jsonl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shards/part-1.jsonl"], "1 file is no set of shards"),
        (["shards/part-1.jsonl", "shards/part-1.jsonl"], "is given twice"),
        (["shards/part-1.jsonl", "link.jsonl"], "link.jsonl is given twice"),
        (["shards/part-1.jsonl", "other.jsonl"], "shards of one request have the same scores"),
        (["in.jsonl", "plain.jsonl"], "has no score that all of its rows have: it is no output of rlvr score"),
        (["shards", "-v", "math"], "--merge verifies nothing: leave out --verifier"),
        (["shards", "--where", "n<1"], "--merge verifies nothing: leave out --where"),
    ],
)
def test_what_is_no_set_of_shards_is_refused(score: Run, arguments: list[str], message: str) -> None:
    source = put("jsonl", ROWS[:4])
    Path("plain.jsonl").write_text(Path("in.jsonl").read_text())
    shard(score, source, 2, "jsonl")
    Path("link.jsonl").symlink_to("shards/part-1.jsonl")
    score(source, "--out", "other.jsonl", "-v", "mine.py:length", "--as", "other", "--workers", "0")
    done = score(*arguments, "--merge", "--out", "all.jsonl")
    assert done.code == 2
    assert message in done.err
    assert not Path("all.jsonl").exists()


def test_a_sidecar_twice_under_two_names_is_refused(score: Run) -> None:
    source = put("jsonl", ROWS[:4])
    shard(score, source, 2, "jsonl", "--scores-only")
    Path("shards/part-2.jsonl").write_text(Path("shards/part-1.jsonl").read_text())
    with pytest.raises(RequestError, match=r"part-2\.jsonl, line 1: the id 'c-.*' is in shards/part-1\.jsonl too"):
        rlvr.merge("shards", "all.jsonl")


def test_without_a_verifier_scoring_says_what_is_missing(score: Run) -> None:
    put("jsonl", ROWS[:1])
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "missing option --verifier" in done.err


def test_whole_shards_differ_by_one_row_at_most() -> None:
    for rows in range(20):
        for count in range(1, 7):
            sizes = [len(range(i, rows, count)) for i in range(count)]
            assert merging._dealt(rows, count) == sizes
