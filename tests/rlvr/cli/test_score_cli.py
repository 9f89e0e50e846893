"""`rlvr score`: every row of FILE, in order, with unchanged columns and one more score."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr.cli.columns import column_mapping
from rlvr.errors import DataError, RequestError
from rlvr.record import column_types, parquet
from rlvr.record.column_types import ColumnTypes
from rlvr.record.item import item_of
from rlvr.record.lines import line_of
from rlvr.record.reading import read_batches, source_of
from rlvr.record.schema import Rollout, Score, Task
from rlvr.record.store import read_rollouts, write_rollouts
from rlvr.rescore.merging import merge
from rlvr.rescore.scored import line_with

ALWAYS = ["verifier", "version", "config_hash", "status", "reward", "extracted", "reason", "seconds"]

# Returns its input: the gold as `extracted`, the rest of the row as `reason`.
ECHO = """
import json, time
import rlvr
from rlvr.record.schema import Verdict

def check(completion, task, *, weight: float = 1.0):
    if completion == "crash": raise RuntimeError("broken")
    if completion == "hang": time.sleep(60)
    if completion == "abstain": return None
    rest = json.dumps([task.row_id, dict(task.extra)], default=str)
    return Verdict(status="graded", reward=weight * len(completion), extracted=task.answer, reason=rest)

def surrogate(completion, task):
    return Verdict(status="graded", reward=1.0, extracted="\\ud800!")

def prompted(prompts, completions, **columns):
    return [float(len(prompts[0]) * 100 + len(columns))]

@rlvr.verifier(min_group=1)
def together(rollouts):
    return [len(rollouts)] * len(rollouts)
"""


Run = Callable[..., Any]


@pytest.fixture
def rlvr(cli: Run) -> Run:
    """Function that runs the command line in this process, in a folder with `echo.py`; `--workers 0` by default."""
    Path("echo.py").write_text(ECHO)

    def run(*arguments: str) -> Any:
        given = list(map(str, arguments))
        if given[0] == "score" and "--workers" not in given:
            given += ["--workers", "0"]
        if given[0] == "score" and "--verifier" not in given:
            given += ["--verifier", "echo.py:check"]
        return cli(*given)

    return run


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def put(path: str, *rows: Any) -> None:
    Path(path).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def last(row: dict[str, Any]) -> dict[str, Any]:
    score: dict[str, Any] = row["scores"][-1]
    return score


# --- what is verified -----------------------------------------------------------------------------------------------


def test_every_row_gets_a_status_in_its_order(rlvr: Run) -> None:
    put(
        "in.jsonl",
        {"completion": "four", "answer": "4"},
        {"completion": "", "answer": "4"},
        {"answer": "4"},
        {"completion": None, "answer": "4"},
        {"completion": "x"},
        {"completion": "x", "answer": None},
        {"completion": ["x"], "answer": "4"},
        {"completion": "x", "answer": {"is": 4}},
        {"completion": "abstain", "answer": "4"},
        {},
    )
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl")
    assert done.code == 0, done
    statuses = [last(row)["status"] for row in lines("out.jsonl")]
    assert statuses == ["graded", "unparsed", *["invalid"] * 6, "abstained", "invalid"]
    reasons = [last(row)["reason"] for row in lines("out.jsonl")]
    assert reasons[2:8] == [
        "the row has no completion",
        "the row has no completion",
        "the row has no gold answer",
        "the row has no gold answer",
        "'completion' is a list: expected text, a number or messages",
        "'answer' is an object: expected text or a number",
    ]
    for row in lines("out.jsonl"):
        assert set(ALWAYS) <= set(last(row))
        assert last(row)["verifier"] == "echo:check"
        assert last(row)["seconds"] >= 0
        assert (last(row)["reward"] is None) == (last(row)["status"] != "graded")


@pytest.mark.parametrize(
    "literal",
    [
        "0.10",
        "1e-7",
        "1E+2",
        "-0",
        "123456789012345678901234567890",
        "7",
        "0.1000000000000000000001",
        "true",
        "1" * 5000,
    ],
)
def test_a_numeric_gold_keeps_its_literal_text(rlvr: Run, literal: str) -> None:
    put("in.jsonl", f'{{"answer":{literal} , "completion": {literal}}}')
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl").code == 0
    text = Path("out.jsonl").read_text()
    assert text.startswith(f'{{"answer":{literal} , "completion": {literal}, "scores": [')
    score = json.loads(text[text.index('"scores": ') + len('"scores": ') : -2])[0]
    assert score["extracted"] == literal
    assert score["reward"] == len(literal)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([10, 2**62, None]), ["10", str(2**62), None]),
        (pa.array([0.1, 1e-7, float("nan")]), ["0.1", "1e-7", None]),
        (pa.array([0.1, 4.0, 1 / 3], pa.float32()), ["0.1", "4", "0.33333334"]),
        (pa.array([Decimal("0.10"), Decimal("7.00"), None]), ["0.10", "7.00", None]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array(["a", "b", None], pa.large_string()), ["a", "b", None]),
    ],
)
def test_a_gold_in_a_parquet_column_becomes_text(rlvr: Run, column: pa.Array, texts: list[str | None]) -> None:
    pq.write_table(pa.table({"completion": ["x"] * 3, "answer": column}), "in.parquet")
    assert rlvr("score", "in.parquet", "--out", "out.parquet").code == 0
    table = pq.read_table("out.parquet")
    assert [last(row)["extracted"] for row in table.to_pylist()] == texts
    assert str(table.column("answer").combine_chunks()) == str(column)  # NaN does not equal itself


def test_columns_have_the_names_that_map_says(rlvr: Run) -> None:
    put("in.jsonl", {"pred": "abc", "gold": 0.5, "uid": 7, "level": 3, "scores": []})
    done = rlvr(
        "score", "in.jsonl", "--out", "out.jsonl", "--map", "completion=pred", "--map", "answer=gold", "--map=id=uid"
    )
    assert done.code == 0
    (row,) = lines("out.jsonl")
    assert (last(row)["reward"], last(row)["extracted"]) == (3.0, "0.5")
    identity, rest = json.loads(last(row)["reason"])
    assert identity == "7"
    assert rest == {"pred": "abc", "gold": 0.5, "uid": 7, "level": 3}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("completions=pred", "there is no target 'completions'; did you mean 'completion'?"),
        ("completion", "write TARGET=SOURCE"),
        ("completion=", "write TARGET=SOURCE"),
        ("completion=prde", "no row has a column 'prde'; did you mean 'pred'?"),
    ],
)
def test_a_wrong_mapping_is_refused(rlvr: Run, mapping: str, message: str) -> None:
    put("in.jsonl", {"pred": "a", "answer": "4"})
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--map", mapping)
    assert done.code == 2
    assert done.err.startswith(f"rlvr: --map {mapping}: ")
    assert message in done.err
    assert not Path("out.jsonl").exists()


def test_a_mapping_twice_or_for_records_is_refused(rlvr: Run) -> None:
    write_rollouts("in.jsonl", [Rollout(id="a", prompt="p", completion="c")])
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--map", "completion=pred")
    assert done.code == 2
    assert "in.jsonl holds records, which have fixed columns" in done.err
    with pytest.raises(RequestError, match="completion is mapped twice"):
        column_mapping(["completion=a", "completion=b"])


def test_a_trl_function_sees_the_prompt_and_a_group_verifier_the_group(rlvr: Run) -> None:
    put(
        "in.jsonl",
        {"prompt": "12", "completion": "a", "answer": "4", "group_id": 1},
        {"prompt": [{"role": "user", "content": "hi"}], "completion": "a", "answer": "4", "group_id": 2},
        {"prompt": "12", "completion": "a", "answer": "4", "group_id": 2},
        {"prompt": [1, 2], "completion": "a", "answer": "4", "group_id": 3},
    )
    assert rlvr("score", "in.jsonl", "--out", "trl.jsonl", "--verifier", "echo.py:prompted").code == 0
    assert [last(row)["reward"] for row in lines("trl.jsonl")] == [203, 103, 203, None]  # three names for the gold
    assert last(lines("trl.jsonl")[3])["reason"] == "'prompt' is a list: expected text or messages"
    assert rlvr("score", "in.jsonl", "--out", "groups.jsonl", "--verifier", "echo.py:together").code == 0
    assert [last(row)["reward"] for row in lines("groups.jsonl")] == [1, 2, 2, None]


def test_options_reach_the_verifier_and_the_score(rlvr: Run) -> None:
    put("in.jsonl", {"completion": "four", "answer": "4"})
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl", "--option", "weight=2.5").code == 0
    score = last(lines("out.jsonl")[0])
    assert score["reward"] == 10
    assert json.loads(score["config"]) == {"weight": 2.5}
    for wrong in ("wieght=2", "weight", "=2", "weight=[", "weight=heavy"):
        assert rlvr("score", "in.jsonl", "--out", "no.jsonl", "--option", wrong).code == 2
    assert rlvr("score", "in.jsonl", "--out", "no.jsonl", "--option", "weight=1", "--option", "weight=2").code == 2


def test_deep_nesting_costs_one_row_or_one_line(rlvr: Run) -> None:
    good = '{"completion": "x", "answer": "4"}'
    put("in.jsonl", good, *(good[:-1] + f', "deep": {"[" * depth}{"]" * depth}}}' for depth in (400, 900, 970)), good)
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--skip-bad-lines")
    assert done.code == 0, done.err
    texts = Path("out.jsonl").read_text().splitlines()
    reasons = [re.search(r'"reason": "(.*?)",', text.partition('"scores"')[2]) for text in texts]
    assert len(texts) + ("left out     1 bad lines" in done.out) == 5
    assert "a column is nested too deeply to be read" in [match[1] for match in reasons if match]
    put("in.jsonl", good[:-1] + f', "deep": {"[" * 100_000}}}')
    assert "line 1 is nested too deeply to read" in rlvr("score", "in.jsonl", "--out", "no.jsonl").err


# --- lines stay as they were ----------------------------------------------------------------------------------------

SPACE = st.text(" \t", max_size=2)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["}", '"', '{"scores": []}', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def json_objects(draw: st.DrawFn) -> str:
    """Texts of JSON objects, with white space anywhere and duplicate keys."""
    names = draw(st.lists(st.text(max_size=3) | st.just("scores"), max_size=5))
    members = []
    for name in names:
        value = [{"old": draw(VALUES)}] if name == "scores" else draw(VALUES)
        text = json.dumps(value, ensure_ascii=draw(st.booleans()) or not _has_utf8(value))
        members.append(f"{draw(SPACE)}{json.dumps(name)}{draw(SPACE)}:{draw(SPACE)}{text}{draw(SPACE)}")
    return "{" + draw(SPACE) + ",".join(members) + "}"


def _has_utf8(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


SCORE = Score(status="graded", reward=1.0, extracted="\ud800\u2028", verifier="v", version="1")


@settings(max_examples=100, deadline=None)
@given(text=json_objects())
def test_a_line_keeps_every_value_and_its_order(text: str) -> None:
    before = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    scored = line_with(line_of(text, "here"), [SCORE])
    assert "\n" not in scored
    scored.encode()
    after = json.loads(scored, parse_float=str, parse_int=str, parse_constant=str)
    assert [*after] == [*before] if "scores" in before else [*after] == [*before, "scores"]
    assert after["scores"][:-1] == before.get("scores", [])
    assert after["scores"][-1]["extracted"] == "\ud800\u2028"
    assert {**after, "scores": None} == {**before, "scores": None}


@settings(max_examples=100, deadline=None)
@given(text=json_objects(), data=st.data())
def test_a_line_is_refused_exactly_when_json_refuses_it(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text) - 1))
    broken = (text[:place] + data.draw(st.sampled_from(["", ",", "}", '"', "x", ":"])) + text[place + 1 :]).strip(" \t")
    try:
        expected = json.loads(broken)
    except ValueError:
        expected = None
    try:
        values: Any = line_of(broken, "here").values
    except DataError:
        values = None
    if isinstance(expected, dict):
        assert repr(values) == repr(expected)
    else:
        assert values is None


def test_scores_are_appended_to_what_is_there(rlvr: Run) -> None:
    put(
        "in.jsonl",
        {"completion": "x", "answer": "4", "scores": None},
        '{"completion":"x","answer":"4","scores":[{"a": 1.50}],"z":1}',
    )
    rlvr("score", "in.jsonl", "--out", "one.jsonl")
    assert rlvr("score", "one.jsonl", "--out", "two.jsonl", "--option", "weight=3").code == 0
    first, second = lines("two.jsonl")
    assert [score["reward"] for score in first["scores"]] == [1.0, 3.0]
    assert [score.get("reward") for score in second["scores"]] == [None, 1.0, 3.0]
    assert '"scores":[{"a": 1.50}, {' in Path("two.jsonl").read_text()


@pytest.mark.parametrize("scores", [0.5, [0.5], "x", {"a": 1}])
def test_a_column_scores_of_another_kind_is_refused_before_the_work(rlvr: Run, scores: Any) -> None:
    put("in.jsonl", {"completion": "x", "answer": "4"}, {"completion": "x", "answer": "4", "scores": scores})
    for out in ("out.jsonl", "out.parquet"):
        done = rlvr("score", "in.jsonl", "--out", out)
        assert done.code == 2
        assert re.match(r"rlvr: in\.jsonl, line 2: the column 'scores' is .* rename it", done.err)
    pq.write_table(pa.table({"completion": ["x"], "answer": ["4"], "scores": [scores]}), "in.parquet")
    for out in ("out.jsonl", "out.parquet"):
        done = rlvr("score", "in.parquet", "--out", out)
        assert done.code == 2
        assert "the column 'scores' is" in done.err
    assert not Path("out.jsonl").exists()


# --- records --------------------------------------------------------------------------------------------------------

RECORDS = [
    Rollout(
        id=str(i),
        prompt="p",
        completion="c" * i,
        task=Task(answer=str(i), extra={"level": i}),
        token_ids=(1, 2),
        loss_mask=(False, True),
        behaviour_logprobs=(None, -0.5),
        extra_tokens={"a.b": (None, 0.5)},
    )
    for i in range(1, 4)
]


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("verifier", ["echo.py:check", "echo.py:together"])
def test_scored_records_are_records(rlvr: Run, source: str, target: str, verifier: str) -> None:
    write_rollouts(source, RECORDS)
    done = rlvr("score", source, "--out", target, "--verifier", verifier)
    assert done.code == 0, done.err
    scored = list(read_rollouts(target))
    assert [record.model_copy(update={"scores": ()}) for record in scored] == RECORDS
    if verifier == "echo.py:check":
        assert [record.scores[0].reward for record in scored] == [1.0, 2.0, 3.0]
        assert [record.scores[0].extracted for record in scored] == ["1", "2", "3"]
        assert json.loads(scored[2].scores[0].reason or "") == [None, {"level": 3}]
    assert rlvr("score", target, "--out", f"again-{target}").code == 0
    assert [len(record.scores) for record in read_rollouts(f"again-{target}")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "was written with version 99 of the record"),
        ({"schema_version": "x"}, "schema_version is 'x'"),
        ({"completion": 4}, "completion: Input should be a valid string"),
        ({"task": {"answer": 4}}, "task.answer: Input should be a valid string"),
    ],
)
def test_a_record_that_is_none_is_refused_before_the_work(rlvr: Run, change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"schema_version": 1, "id": "a", "prompt": "p", "completion": "c", "task": {"answer": "4"}}
    put("in.jsonl", good, {**good, **change})
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert done.err.startswith("rlvr: in.jsonl, line 2")
    assert message in done.err
    assert not Path("out.jsonl").exists()


def test_records_and_foreign_rows_share_a_file_of_lines(rlvr: Run) -> None:
    record = {"schema_version": 1, "id": "a", "prompt": "p", "completion": "c", "task": {"answer": "4"}}
    put("in.jsonl", record, {"completion": "cc", "answer": 0.50})
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl").code == 0
    assert [last(row)["extracted"] for row in lines("out.jsonl")] == ["4", "0.5"]
    done = rlvr("score", "in.jsonl", "--out", "out.parquet")
    assert done.code == 2
    assert "line 2 is no record, unlike the rows before" in done.err


# --- Parquet stays as it was ----------------------------------------------------------------------------------------


def rich_table(rows: int) -> pa.Table:
    categories = pa.array([str(i % 3) for i in range(rows)]).dictionary_encode()
    return pa.table(
        {
            "completion": ["x" * (i % 5 + 1) for i in range(rows)],
            "answer": pa.array(range(rows), pa.int16()),
            "time": pa.array([i * 1_000_000_007 for i in range(rows)], pa.timestamp("ns", "UTC")),
            "price": pa.array([Decimal(i) / 100 for i in range(rows)], pa.decimal128(20, 2)),
            "image": [os.urandom(4) for _ in range(rows)],
            "category": categories,
            "nested": pa.array([[{"a": [i, None], "b": float("nan")}] for i in range(rows)]),
            "empty": pa.nulls(rows),
            "list": pa.array([[1.5] * (i % 3) or None for i in range(rows)], pa.large_list(pa.float16())),
            "map": pa.array([[("k", i)] for i in range(rows)], pa.map_(pa.string(), pa.int64())),
        }
    ).replace_schema_metadata({"mine": "kept"})


def test_every_column_of_parquet_is_kept_with_its_type(rlvr: Run) -> None:
    table = rich_table(1500)
    pq.write_table(table, "in.parquet", row_group_size=400)
    done = rlvr("score", "in.parquet", "--out", "out.parquet")
    assert done.code == 0, done.err
    scored = pq.read_table("out.parquet")
    assert str(scored.drop(["scores"]).combine_chunks().to_pylist()) == str(table.to_pylist())
    assert scored.schema.names == [*table.schema.names, "scores"]
    assert [scored.schema.field(name).type for name in table.schema.names] == table.schema.types
    assert scored.schema.metadata[b"mine"] == b"kept"
    assert [score[-1]["reward"] for score in scored["scores"].to_pylist()] == [float(i % 5 + 1) for i in range(1500)]
    assert pq.ParquetFile("out.parquet").num_row_groups == 1


@pytest.mark.parametrize("library", ["pandas", "polars", "datasets"])
def test_files_of_other_libraries_can_be_scored_twice(rlvr: Run, library: str) -> None:
    module = importlib.import_module(library)
    rows = {"completion": ["a", "bb", None], "answer": ["1", "2", "3"]}

    def save(path: str) -> None:
        if library == "pandas":
            module.read_parquet(path).to_parquet("saved.parquet")
        elif library == "polars":
            module.read_parquet(path).write_parquet("saved.parquet")
        else:
            module.Dataset.from_parquet(path, cache_dir="cache").to_parquet("saved.parquet")

    pq.write_table(pa.table(rows), "in.parquet")
    save("in.parquet")
    assert rlvr("score", "saved.parquet", "--out", "one.parquet").code == 0
    save("one.parquet")  # the library's own list type; columns without a value may have lost theirs
    done = rlvr("score", "saved.parquet", "--out", "two.parquet", "--option", "weight=2")
    assert done.code == 0, done.err
    scores = pq.read_table("two.parquet")["scores"].to_pylist()
    assert [[score["reward"] for score in row] for row in scores] == [[1, 2], [2, 4], [None, None]]
    assert [row[0]["status"] for row in scores] == ["graded", "graded", "invalid"]


def test_text_of_a_verifier_that_parquet_cannot_hold_is_escaped(rlvr: Run) -> None:
    pq.write_table(pa.table({"completion": ["x"], "answer": ["4"]}), "in.parquet")
    assert rlvr("score", "in.parquet", "--out", "out.parquet", "--verifier", "echo.py:surrogate").code == 0
    assert pq.read_table("out.parquet")["scores"].to_pylist()[0][0]["extracted"] == "\\ud800!"


# --- from one format to the other -----------------------------------------------------------------------------------


def test_lines_become_columns(rlvr: Run) -> None:
    rows: list[dict[str, Any]] = [
        {"completion": "a", "answer": 1, "mixed": 1, "list": [], "object": {"a": 1}, "flag": True},
        {"completion": "bb", "answer": 0.10, "mixed": 0.5, "list": ["é"], "object": {"b": [1.5]}, "late": 2**62},
        {"completion": None, "answer": 10**3},
    ]
    put("in.jsonl", *rows)
    done = rlvr("score", "in.jsonl", "--out", "out.parquet")
    assert done.code == 0, done.err
    table = pq.read_table("out.parquet")
    assert table.schema.names == ["completion", "answer", "mixed", "list", "object", "flag", "late", "scores"]
    assert table["mixed"].to_pylist() == [1.0, 0.5, None]
    assert table["list"].to_pylist() == [[], ["é"], None]
    assert table["object"].to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": [1.5]}, None]
    assert table["late"].to_pylist() == [None, 2**62, None]
    assert [last(row)["extracted"] for row in table.to_pylist()] == ["1", "0.1", None]


@pytest.mark.parametrize(
    ("before", "value", "message"),
    [
        ("text", 1, "a number here, text before"),
        (1, True, "a bool here, a number before"),
        (0.5, True, "a bool here, a number before"),
        ([1], ["a"], "text here, a number before"),
        ({"a": 1}, {"a": []}, "a list here, a number before"),
        (1, 2**63, "a whole number of more than 64 bits"),
        (0.5, 2**53 + 1, "a whole number beyond 2^53"),
        (2**53 + 1, 0.5, "a whole number beyond 2^53"),
        ("a", "b\ud800", "text with a lone surrogate, '\\ud800'"),
        (None, json.loads("[" * 60 + "]" * 60), "nested more than 50 deep"),
        (None, {str(i): 0 for i in range(column_types.MAX_KEYS + 1)}, "more than 1000 different keys"),
    ],
)
def test_what_a_column_cannot_hold_names_line_and_column(rlvr: Run, before: Any, value: Any, message: str) -> None:
    put("in.jsonl", {"completion": "a", "answer": "4", "x": before}, {"completion": "a", "answer": "4", "x": value})
    done = rlvr("score", "in.jsonl", "--out", "out.parquet")
    assert done.code == 2
    assert done.err.startswith("rlvr: in.jsonl, line 2: Parquet cannot hold the column 'x': ")
    assert message in done.err
    assert "write .jsonl instead" in done.err
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl").code == 0


def test_a_column_of_empty_objects_is_named(rlvr: Run) -> None:
    put("in.jsonl", {"completion": "a", "answer": "4", "x": [{}]})
    done = rlvr("score", "in.jsonl", "--out", "out.parquet")
    assert done.code == 2
    assert "cannot hold the column 'x': all its objects are empty" in done.err
    assert list(Path().glob(".*")) == []


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2), min_size=1, max_size=4))
def test_what_gets_a_type_fits_it(rows: list[dict[str, Any]]) -> None:
    """The first reading guarantees that the second refuses no row."""
    types = ColumnTypes()
    try:
        for row in rows:
            types.see(row, "here")
        schema = types.schema("here")
    except DataError:
        return
    for column in schema:
        values = [row.get(column.name) for row in rows]
        _same(pa.array(values, type=column.type).to_pylist(), values)


def _same(found: Any, expected: Any) -> None:
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _same(one, other)
    elif isinstance(expected, dict):
        assert expected.keys() <= found.keys()
        for name, value in found.items():
            _same(value, expected.get(name))
    elif isinstance(expected, float) and np.isnan(expected):
        assert np.isnan(found)
    else:
        assert found == expected


def test_columns_become_lines(rlvr: Run) -> None:
    table = rich_table(3).drop(["image", "nested", "time"])
    table = table.append_column("time", pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] * 3))
    pq.write_table(table, "in.parquet")
    done = rlvr("score", "in.parquet", "--out", "out.jsonl")
    assert done.code == 0, done.err
    row = lines("out.jsonl")[1]
    assert {name: value for name, value in row.items() if name != "scores"} == {
        "completion": "xx",
        "answer": 1,
        "price": "0.01",
        "category": "1",
        "empty": None,
        "list": [1.5],
        "map": {"k": 1},
        "time": "2026-01-02T03:04:05+00:00",
    }
    assert last(row)["extracted"] == "1"


@pytest.mark.parametrize(
    ("column", "values", "rows"),
    [
        (pa.array([b"a", b"b"]), [None, None], 2),
        (pa.array([1.0, float("nan")]), [1.0, None], 1),
        (pa.array([[1.0], [float("inf")]]), [[1.0], ["inf"]], 1),
        (pa.array([timedelta(seconds=1), None]), ["0:00:01", None], 1),
    ],
)
def test_what_json_cannot_hold_becomes_null_or_text_and_is_counted(
    rlvr: Run, column: pa.Array, values: list[Any], rows: int
) -> None:
    pq.write_table(pa.table({"completion": ["a", "b"], "answer": ["4", "4"], "x": column}), "in.parquet")
    done = rlvr("score", "in.parquet", "--out", "out.jsonl")
    assert done.code == 0, done.err
    assert done.err.count("out.jsonl: JSON has no NaN, infinity, time spans or bytes: ") == 1
    assert f"in the columns (rows): x ({rows}); .parquet keeps them\n" in done.err
    assert [row["x"] for row in lines("out.jsonl")] == values


def test_a_map_with_a_key_twice_is_refused(rlvr: Run) -> None:
    column = pa.array([[("k", 1)], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"completion": ["a", "b"], "answer": ["4", "4"], "x": column}), "in.parquet")
    done = rlvr("score", "in.parquet", "--out", "out.jsonl")
    assert done.code == 2
    assert "column 'x' cannot be read" in done.err
    assert not Path("out.jsonl").exists()


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_bad_line_is_refused_before_the_work_or_left_out(rlvr: Run) -> None:
    good = {"completion": "x", "answer": "4"}
    put("in.jsonl", good, "{broken", good, "[1]", '{"completion": "cut of')
    with Path("in.jsonl").open("ab") as file:
        file.write(b'{"completion": "\xff"}\n')
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl")
    assert done.code == 2
    assert done.err == (
        "rlvr: in.jsonl, line 2 is not JSON: Expecting property name enclosed in double quotes (column 2) "
        "(and 3 more lines); --skip-bad-lines leaves such lines out\n"
    )
    assert not Path("out.jsonl").exists()
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--skip-bad-lines")
    assert done.code == 0
    assert "left out     4 bad lines, the first: in.jsonl, line 2 is not JSON" in done.out
    assert len(lines("out.jsonl")) == 2


def test_out_is_never_overwritten_by_accident(rlvr: Run) -> None:
    put("in.jsonl", {"completion": "x", "answer": "4"})
    put("out.jsonl", "precious")
    Path("link.jsonl").symlink_to("in.jsonl")
    Path("folder").mkdir()
    put("folder/in.jsonl", "precious")
    for arguments, message in [
        (["folder"], "folder/in.jsonl exists; --force replaces it"),
        (["."], "--out in.jsonl is FILE itself"),
        (["out.jsonl"], "out.jsonl exists; --force replaces it"),
        (["in.jsonl", "--force"], "is FILE itself"),
        (["link.jsonl", "--force"], "is FILE itself"),
        (["none/out.jsonl"], "none/out.jsonl cannot be written: No such file or directory"),
        (["out.csv"], "ends in neither .parquet nor .jsonl"),
    ]:
        done = rlvr("score", "in.jsonl", "--out", *arguments)
        assert done.code == 2
        assert message in done.err
    assert Path("out.jsonl").read_text() == "precious\n"
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl", "--force").code == 0
    assert len(lines("out.jsonl")) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "none.jsonl does not exist"),
        ("in.txt", b"completion,answer\n", "in.txt ends in neither .parquet nor .jsonl"),
        ("in.parquet", b"no", "in.parquet is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(rlvr: Run, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    done = rlvr("score", name, "--out", "out.jsonl")
    assert done.code == 2
    assert done.err.startswith(f"rlvr: {message}")
    assert done.err.count("\n") == 1


def test_nothing_to_score_is_refused_and_nothing_is_written(rlvr: Run) -> None:
    put("in.jsonl")
    put("rows.jsonl", {"completion": "x", "answer": "4"})
    pq.write_table(pa.table({"completion": pa.array([], pa.string())}), "in.parquet")
    for arguments, why in (
        (["in.jsonl"], "in.jsonl has no rows"),
        (["in.parquet"], "in.parquet has no rows"),
        (["rows.jsonl", "--where", "completion=y"], "rows.jsonl has no row that meets --where completion=y"),
    ):
        done = rlvr("score", *arguments, "--out", "out.jsonl")
        assert (done.code, done.err) == (2, f"rlvr: nothing to score: {why}\n")
        assert not Path("out.jsonl").exists()


def test_an_empty_file_beside_others_is_told_of(rlvr: Run) -> None:
    put("in.jsonl")
    put("rows.jsonl", {"completion": "x", "answer": "4"})
    done = rlvr("score", "rows.jsonl", "in.jsonl", "--out", "out.jsonl")
    assert done.code == 0
    assert done.err == "rlvr: in.jsonl has no rows\n"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_shard_without_rows_has_an_empty_output(rlvr: Run, ending: str) -> None:
    put("in.jsonl", {"completion": "x", "answer": "4"})
    for shard in (1, 2):
        done = rlvr("score", "in.jsonl", "--out", f"{shard}.{ending}", "--shard", f"{shard}/2")
        assert done.code == 0, done.err
    assert "shard 2/2 of in.jsonl has no rows: its output is empty" in done.err
    assert merge([f"1.{ending}", f"2.{ending}"], f"all.{ending}").written == 1
    if ending == "parquet":
        assert "scores" in pq.read_schema("2.parquet").names


def test_a_file_that_grows_meanwhile_is_noticed(rlvr: Run) -> None:
    put("in.jsonl", *[{"completion": "x" if i else "first", "answer": "4"} for i in range(600)])
    Path("grow.py").write_text(
        "def check(completion, task):\n"
        "    if completion == 'first':\n"
        "        with open('in.jsonl', 'a') as file: file.write('{}\\n')\n"
        "    return True\n"
    )
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--verifier", "grow.py:check")
    assert done.code == 1
    assert "in.jsonl changed while it was read: 600 rows, then 601" in done.err
    assert not Path("out.jsonl").exists()


# --- how it ends ----------------------------------------------------------------------------------------------------


def test_the_summary_says_what_the_mean_is_over(rlvr: Run) -> None:
    rows = [{"completion": text, "answer": "4"} for text in ["aaaa", "bb", "", "abstain"]]
    put("in.jsonl", *rows, {"answer": "4"})
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl")
    assert re.sub(r"rows/s .*", "rows/s", done.out).split("\n") == [
        "rows         5",
        "mean reward  2.0000 over 3 rows (unparsed counts as 0)",
        "graded       2",
        "unparsed     1",
        "abstained    1",
        "invalid      1",
        "rows/s",
        "written to out.jsonl",
        "",
    ]
    put("none.jsonl", {"completion": "abstain", "answer": "4"})
    assert "mean reward  none: no verdict counts\n" in rlvr("score", "none.jsonl", "--out", "o.jsonl").out


def test_the_error_rate_sets_only_the_exit_code(rlvr: Run) -> None:
    put("in.jsonl", *[{"completion": "x", "answer": "4"}] * 8, *[{"completion": "crash", "answer": "4"}] * 2)
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--max-error-rate", "0.2")
    assert done.code == 0
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl", "--force", "--max-error-rate", "0.19")
    assert done.code == 1
    assert "20.0% of the verdicts are errors or time-outs, --max-error-rate allows 19.0%" in done.err
    assert [last(row)["status"] for row in lines("out.jsonl")] == ["graded"] * 8 + ["error"] * 2
    assert rlvr("score", "in.jsonl", "--out", "out.jsonl", "--force", "--max-error-rate", "2").code == 2


def test_progress_is_said_in_lines_where_there_is_no_terminal(rlvr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    put("in.jsonl", *[{"completion": "x", "answer": "4"}] * 600)
    monkeypatch.setenv("RLVR_PROGRESS_SECONDS", "0")
    done = rlvr("score", "in.jsonl", "--out", "out.jsonl")
    assert re.match(r"512 of 600 rows, [\d,]+ rows/s, [\d,]+ s left; 512 graded\n600 of 600 rows, ", done.err)
    for wrong in ("soon", "-1", "nan"):
        monkeypatch.setenv("RLVR_PROGRESS_SECONDS", wrong)
        done = rlvr("score", "in.jsonl", "--out", "other.jsonl")
        assert (done.code, done.err) == (2, f"rlvr: RLVR_PROGRESS_SECONDS is {wrong!r}: expected seconds, at least 0\n")
        assert not Path("other.jsonl").exists()


def test_progress_is_a_bar_in_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "in.jsonl").write_text('{"completion": "x", "answer": "4"}\n' * 600)
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "rlvr", "score", "in.jsonl", "--verifier", "echo.py:check", "--out", "out.jsonl"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux reports that the other side is closed
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert b"/600" in shown
    assert b"rows/s" in shown
    assert b"rows         600" in out


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rlvr", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_the_program_scores_with_workers_and_time_outs(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    rows = [{"completion": "x" if i != 3 else "hang", "answer": i} for i in range(20)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = program(
        *("score", "in.jsonl", "--verifier", "echo.py:check", "--out", "out.parquet"),
        *("--workers", "2", "--timeout", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["answer"] for row in table] == list(range(20))
    assert [last(row)["status"] for row in table] == ["graded"] * 3 + ["timeout"] + ["graded"] * 16
    assert "timeout      1" in done.stdout


def test_the_math_verifier_scores_a_file_without_torch(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"completion": "so \\\\boxed{0.10}", "answer": 0.10}\n{"completion": "\\\\boxed{5}", "answer": 4}\n'
    )
    script = (
        "import sys\n"
        "from rlvr.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'datasets', 'transformers'} & set(sys.modules)))\n"
    )
    arguments = ["score", "in.jsonl", "--verifier", "math", "--out", "out.parquet", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n[]\n")
    assert [last(row)["reward"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist()] == [1.0, 0.0]


def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "in.jsonl").write_text('{"completion": "hang", "answer": "4"}\n')
    command = [sys.executable, "-m", "rlvr", "score", "in.jsonl", "--verifier", "echo.py:check", "--out", "out.jsonl"]
    # Processes in the background of a shell, such as a test suite, ignore Ctrl-C, and so do their children.
    listening = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*command, "--timeout", "100"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    )
    while not list(tmp_path.glob(".out.jsonl.*.tmp")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode != 0
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["echo.py", "in.jsonl"]


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
def test_memory_is_bounded(rlvr: Run, source: str, target: str) -> None:
    text = "x" * 300_000
    count = 400
    put("first.jsonl", {"completion": "4", "answer": "4"})
    assert rlvr("score", "first.jsonl", "--out", "first.parquet").code == 0  # imports are no rows
    if source == "in.jsonl":
        put(source, *({"completion": f"{i}", "answer": "4", "text": f"{i}{text}"} for i in range(count)))
    else:
        table = [{"completion": f"{i}", "answer": "4", "text": f"{i}{text}"} for i in range(count)]
        pq.write_table(pa.Table.from_pylist(table), source, row_group_size=10)
        del table
    tracemalloc.start()
    done = rlvr("score", source, "--out", target)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.code == 0, done.err
    assert most < count * len(text) / 2


# --- reading --------------------------------------------------------------------------------------------------------


def test_batches_are_bounded_in_rows_and_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"x": ["a"] * 2000}), path)
    assert max(map(len, read_batches(path))) == parquet.BATCH_ROWS
    pq.write_table(pa.table({"x": [str(i) * 10_000 for i in range(500)]}), path, use_dictionary=False)
    sizes = list(map(len, read_batches(path)))
    assert sum(sizes) == 500
    assert max(sizes) * 30_000 < 2 * parquet.BATCH_BYTES < 500 * 30_000


def test_a_foreign_row_becomes_an_item_with_the_rest_of_the_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"completion": "c", "answer": 0.10, "prompt": "p", "id": 3, "group_id": 4, "level": 5, "scores": []}'
    )
    (batch,) = read_batches(path)
    (row,) = batch.rows(source_of(path).columns)
    item = item_of(row, wants_rollout=True)
    assert item.completion == "c"
    assert item.task == Task(row_id="3", answer="0.10", extra={"level": 5})
    assert item.rollout == Rollout(id="3", group_id="4", prompt="p", completion="c", task=item.task)
    assert item_of(row, wants_rollout=False).rollout is None
