"""Verifiers that judge whole groups, on files: groups by id, in the order of the input, whole or not at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr.record.schema import Rollout, Task
from rlvr.record.store import read_rollouts, write_rollouts

MINE = """
import os, pathlib, rlvr

def whole(rollouts):
    "100 times the size of the group, and the sum of its numbers."
    numbers = [int(rollout.completion) for rollout in rollouts]
    with open("calls.txt", "a") as calls: calls.write(f"{numbers}\\n")
    if pathlib.Path("stop.txt").exists() and 37 in numbers: raise KeyboardInterrupt
    return [100.0 * len(numbers) + sum(numbers)] * len(numbers)

def length(completion, task):
    return float(len(completion))
"""

Run = Callable[..., Any]


@pytest.fixture
def score(cli: Run) -> Run:
    """Function that runs `rlvr score` with `whole` in this process, in a folder with `mine.py`."""
    Path("mine.py").write_text(MINE)

    def run(*arguments: str, verifiers: tuple[str, ...] = ("mine.py:whole",)) -> Any:
        named = [part for each in verifiers for part in ("--verifier", each)]
        return cli("score", *arguments, *named, "--workers", "0")

    return run


def row(number: int, group: Any = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "prompt": "p", "completion": str(number), "answer": "1", "group_id": group, **more}


def put(path: str, *rows: dict[str, Any]) -> None:
    if path.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        Path(path).write_text("".join(json.dumps(each) + "\n" for each in rows))


def read(path: str) -> list[dict[str, Any]]:
    if path.endswith(".parquet"):
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rewards(path: str) -> list[float | None]:
    return [each["scores"][-1]["reward"] for each in read(path)]


INTERLEAVED = [row(number, f"g{number % 4}") for number in range(10)]
EXPECTED = [312.0, 315.0, 208.0, 210.0]  # 0 + 4 + 8, 1 + 5 + 9, 2 + 6, 3 + 7


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_rows_of_a_group_need_not_stand_together(score: Run, source: str, out: str) -> None:
    put(source, *INTERLEAVED)
    done = score(source, "--out", out)
    assert done.code == 0, done.err
    assert [each["id"] for each in read(out)] == list(range(10))
    assert rewards(out) == [EXPECTED[number % 4] for number in range(10)]
    assert "rows         10" in done.out
    assert Path("calls.txt").read_text().splitlines() == ["[0, 4, 8]", "[1, 5, 9]", "[2, 6]", "[3, 7]"]


def test_many_rows_of_two_files_in_any_order(score: Run) -> None:
    rows = [row(number, number // 3) for number in range(900)]
    random.Random(0).shuffle(rows)
    put("a.jsonl", *rows)
    put("b.jsonl", *rows[::-1])
    done = score("a.jsonl", "b.jsonl", "--out", "out.jsonl", verifiers=("mine.py:whole", "mine.py:length"))
    assert done.code == 0, done.err
    assert "300 group ids are in several files" in done.err
    found = read("out.jsonl")
    assert [each["id"] for each in found] == [each["id"] for each in [*rows, *rows[::-1]]]
    for each in found:
        first = each["id"] // 3 * 3
        by_whole, by_length = each["scores"]
        assert by_whole["reward"] == 300.0 + 3 * first + 3
        assert by_length["reward"] == len(each["completion"])


def test_records_of_one_run_are_one_group_in_two_files(score: Run) -> None:
    def record(number: int, group: str, run: str | None) -> Rollout:
        about = {"id": f"{run}-{number}", "run_id": run, "group_id": group, "prompt": "p", "task": Task(answer="1")}
        return Rollout(**about, completion=str(number))

    write_rollouts("a.parquet", [record(1, "0", "one"), record(2, "0", "two"), record(3, "0", "one")])
    write_rollouts("b.parquet", [record(4, "0", "two"), record(5, "1", "one"), record(6, "1", "one")])
    assert score("a.parquet", "b.parquet", "--out", "out.parquet").code == 0
    found = [rollout.scores[0].reward for rollout in read_rollouts(Path("out.parquet"))]
    assert found == [204.0, 206.0, 204.0, 206.0, 211.0, 211.0]


def test_records_that_lack_members_of_their_groups_are_counted(score: Run) -> None:
    def record(number: int, group: str) -> Rollout:
        about = {"id": str(number), "run_id": "r", "group_id": group, "group_size": 3, "task": Task(answer="1")}
        return Rollout(**about, prompt="p", completion=str(number))

    write_rollouts("in.jsonl", [record(number, f"g{number // 3}") for number in range(8)])
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert "1 groups have fewer rollouts here than were sampled (group_size)" in done.err


def test_neighbors_of_two_files_with_one_id_are_two_groups(score: Run) -> None:
    put("a.jsonl", row(1, "0"), row(2, "0"))
    put("b.jsonl", row(3, "0"), row(4, "0"))
    assert score("a.jsonl", "b.jsonl", "--out", "out.jsonl").code == 0
    assert rewards("out.jsonl") == [203.0, 203.0, 207.0, 207.0]


def test_a_row_at_fault_keeps_its_reason_and_its_place(score: Run) -> None:
    put("in.jsonl", row(0, "a"), row(1, "b"), row(2, "a", completion=[1]), row(3, "b"), row(4, "a"))
    assert score("in.jsonl", "--out", "out.jsonl").code == 0
    assert rewards("out.jsonl") == [204.0, 204.0, None, 204.0, 204.0]
    assert "'completion' is a list" in read("out.jsonl")[2]["scores"][0]["reason"]


# --- refused --------------------------------------------------------------------------------------------------------


def test_rows_that_name_no_group_are_refused_with_what_to_do(score: Run) -> None:
    put("in.jsonl", *({**row(number), "group_id": None, "question_id": number // 2} for number in range(4)))
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "verifier 'mine:whole' judges groups of at least 2 rollouts, and no row names its group" in done.err
    assert "--map group_id=COLUMN" in done.err
    assert not Path("out.jsonl").exists()
    assert score("in.jsonl", "--out", "out.jsonl", "--map", "group_id=question_id").code == 0
    assert rewards("out.jsonl") == [201.0, 201.0, 205.0, 205.0]


def test_groups_of_one_are_refused(score: Run) -> None:
    put("in.jsonl", *(row(number, number) for number in range(4)))
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "no group has as many (by the column 'group_id')" in done.err


def test_some_small_groups_are_invalid_and_counted(score: Run) -> None:
    put("in.jsonl", row(0, "a"), row(1, "a"), row(2, "b"), row(3, None))
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert "2 rows are in groups of fewer than 2 (1 name no group): their verdict is `invalid`" in done.err
    assert rewards("out.jsonl") == [201.0, 201.0, None, None]


def test_a_group_that_is_far_too_large_is_refused(score: Run) -> None:
    put("in.jsonl", *(row(number, "all") for number in range(10_001)))
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert "the group 'all' has 10,001 rows, and a verifier gets all of a group at once: at most 10,000" in done.err


@pytest.mark.parametrize(
    ("selected", "message"),
    [
        (
            ["--limit", "4"],
            "--limit 4 takes 1 of the 3 rows of group '1', and a verifier judges whole groups; --limit 6",
        ),
        (["--where", "id!=1"], "--where takes 2 of the 3 rows of group '0', and a verifier judges whole groups"),
        (["--where", "id>0", "--limit", "5"], "--limit 5 takes 2 of the 3 rows of group '0', and a"),
    ],
)
def test_a_selection_that_cuts_a_group_is_refused(score: Run, selected: list[str], message: str) -> None:
    put("in.jsonl", *(row(number, number // 3) for number in range(9)))
    done = score("in.jsonl", "--out", "out.jsonl", *selected)
    assert done.code == 2
    assert message in done.err
    assert not Path("out.jsonl").exists()


def test_a_selection_of_whole_groups_is_scored(score: Run) -> None:
    put("in.jsonl", *(row(number, number // 3) for number in range(9)))
    assert score("in.jsonl", "--out", "a.jsonl", "--limit", "6").code == 0
    assert rewards("a.jsonl") == [303.0] * 3 + [312.0] * 3
    assert score("in.jsonl", "--out", "b.jsonl", "--where", "group_id=2").code == 0
    assert rewards("b.jsonl") == [321.0] * 3


# --- killed and continued ----------------------------------------------------------------------------------------


def test_an_interrupted_request_goes_on_group_by_group(score: Run) -> None:
    put("in.jsonl", *(row(number, number % 50) for number in range(200)))
    Path("stop.txt").touch()
    assert score("in.jsonl", "--out", "out.jsonl").code != 0
    assert not Path("out.jsonl").exists()
    assert Path(".out.jsonl.journal").exists()
    Path("stop.txt").unlink()
    Path("calls.txt").unlink()
    done = score("in.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert "144 rows are verified already" in done.err  # the last group may be incomplete
    assert len(Path("calls.txt").read_text().splitlines()) == 14
    assert rewards("out.jsonl") == [400.0 + 4 * (number % 50) + 300 for number in range(200)]
    assert score("in.jsonl", "--out", "whole.jsonl").code == 0

    def timeless(path: str) -> list[dict[str, Any]]:
        kept = ("verifier", "status", "reward", "extracted", "reason")
        return [{**each, "scores": [{k: s[k] for k in kept} for s in each["scores"]]} for each in read(path)]

    assert timeless("out.jsonl") == timeless("whole.jsonl")
