"""`rlvr show`: output, conditions, and hostile completions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.cli.show import LONG
from rlvr.errors import RequestError
from rlvr.record.fields import condition
from rlvr.record.schema import Rollout
from rlvr.record.store import write_rollouts
from rlvr.terminal import printable

Show = Callable[..., Any]


@pytest.fixture
def show(cli: Show) -> Show:
    """Function that runs `rlvr show` in this process."""

    def run(*arguments: str) -> Any:
        return cli("show", *arguments)

    return run


def put(path: str, *rows: Any) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def score(status: str, reward: float | None = None, **more: Any) -> dict[str, Any]:
    return {"verifier": "math", "version": "1", "status": status, "reward": reward, "seconds": 0.0125, **more}


FULL = Rollout.model_validate(
    {
        "id": "r-1",
        "group_id": "g-1",
        "index": 1,
        "group_size": 8,
        "messages": [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?\nQuick."}],
        "completion": "Let me see.\n\\boxed{2}",
        "task": {"answer": "2"},
        "token_ids": [5, 6, 7, 2],
        "loss_mask": [False, True, True, True],
        "policy_versions": [{"version": 30, "count": 1}, {"version": 31, "count": 2}],
        "sampling": {"temperature": 0.5},
        "finish_reason": "stop",
        "stop_reason": "</s>",
        "scores": [score("unparsed", reason="no\nbox"), score("graded", 1.0, extracted="2")],
    }
)
OTHERS = [
    Rollout.model_validate(
        {
            "id": f"r-{i}",
            "group_id": f"g-{i % 2}",
            "prompt": "p",
            "completion": f"completion {i}",
            "finish_reason": "length",
            "scores": [score("graded", i / 10)],
        }
    )
    for i in range(2, 15)
]


@pytest.mark.parametrize("file", ["in.jsonl", "in.parquet"])
def test_a_record_is_printed_for_reading(show: Show, file: str) -> None:
    write_rollouts(file, [FULL])
    place = "line" if file.endswith("l") else "row"
    assert show(file).out.split("\n") == [
        f"--- {place} 1 | id r-1 | group g-1, 2 of 8 | policy versions 30 to 31 | 3 tokens | finished: stop (</s>)",
        *("system", "    Add."),
        *("user", "    1 + 1?", "    Quick."),
        *("completion", "    Let me see.", "    \\boxed{2}"),
        "verdict unparsed, by math 1, no\\nbox, 0.013 s",
        "verdict graded 1.0, by math 1, extracted 2, 0.013 s",
        *("gold 2", "", ""),
    ]


def test_a_foreign_row_is_printed_as_far_as_it_goes(show: Show) -> None:
    put("in.jsonl", {"q": "1 + 1?", "pred": "2", "gold": 2.50}, {"pred": ["a", 1]}, {})
    done = show("in.jsonl", "--map", "prompt=q", "--map", "completion=pred", "--map", "answer=gold")
    assert done.out.split("\n") == [
        *("--- line 1", "prompt", "    1 + 1?", "completion", "    2", "no verdict", "gold 2.5", ""),
        *("--- line 2", "completion", '    ["a", 1]', "no verdict", ""),
        *("--- line 3", "no verdict", "", ""),
    ]


def ids(done: Any) -> list[str]:
    assert done.code == 0, done.err
    return [line.split("id ")[1].split(" ")[0] for line in done.out.splitlines() if line.startswith("--- ")]


@pytest.mark.parametrize("file", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["reward<0.5"], ["r-2", "r-3", "r-4"]),
        (["reward >= 0.3", "reward != .4", "reward<=0.5"], ["r-3", "r-5"]),
        (["reward==1"], ["r-1", "r-10"]),
        (["status=graded", "finish_reason=stop"], ["r-1"]),
        (["completion~see"], ["r-1"]),
        (["id=r-7"], ["r-7"]),
        (["version=31"], ["r-1"]),
        (["tokens>2"], ["r-1"]),
        (["task.answer=2"], ["r-1"]),
        (["answer!=null"], ["r-1"]),
        (["sampling.temperature<1"], ["r-1"]),
        (["answer=null", "reward=0.2"], ["r-2"]),
        (["extracted=2"], ["r-1"]),
        (["prompt~Quick"], ["r-1"]),
        (["status=timeout"], []),
    ],
)
def test_where_keeps_the_rows_for_which_it_holds(
    show: Show, file: str, conditions: list[str], expected: list[str]
) -> None:
    write_rollouts(file, [FULL, *OTHERS])
    assert ids(show(file, *[argument for each in conditions for argument in ("--where", each)])) == expected


def test_where_reads_a_foreign_files_own_columns(show: Show) -> None:
    put(
        "in.jsonl",
        {"id": "a", "level": 3, "ok": True, "reward": 5},
        {"id": "b", "meta": {"n": None}, "scores": [score("graded", 0)]},
    )
    assert ids(show("in.jsonl", "-w", "level>2")) == ["a"]
    assert ids(show("in.jsonl", "-w", "ok=true")) == ["a"]
    assert ids(show("in.jsonl", "-w", "reward>1")) == ["a"]  # no score: its own column
    assert ids(show("in.jsonl", "-w", "reward=0")) == ["b"]
    assert ids(show("in.jsonl", "-w", "meta.n=null")) == ["a", "b"]


@pytest.mark.parametrize("file", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["verifier=math", "reward=1"], ["first"]),
        (["reward=1", "verifier=math"], ["first"]),
        (["verifier=math", "reward=0"], ["last", "only"]),
        (["verifier=short", "reward=1"], ["last"]),
        (["verifier=math", "status=timeout"], []),
        (["reward=1"], ["first", "last"]),
        (["reward=0", "id!=only"], ["first", "last"]),
        (["status!=graded"], ["only"]),
        (["verifier=null"], ["none"]),
        (["extracted<10", "verifier=math"], ["first"]),  # the text of another verifier cannot be ordered
    ],
)
def test_conditions_on_a_score_must_hold_for_one_score_of_the_row(
    show: Show, file: str, conditions: list[str], expected: list[str]
) -> None:
    def by(verifier: str, status: str, reward: float | None, extracted: str | None = None) -> dict[str, Any]:
        return score(status, reward, verifier=verifier, extracted=extracted)

    rows = [
        {"id": "first", "scores": [by("math", "graded", 1.0, "9"), by("short", "graded", 0.0, "nine")]},
        {"id": "last", "scores": [by("math", "graded", 0.0, "11"), by("short", "graded", 1.0, "eleven")]},
        {"id": "only", "scores": [by("short", "timeout", None), by("math", "graded", 0.0)]},
        {"id": "none", "scores": []},
    ]
    put("in.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), "in.parquet")
    assert ids(show(file, *[argument for each in conditions for argument in ("--where", each)])) == expected


def test_limit_says_how_many_more(show: Show) -> None:
    write_rollouts("in.parquet", [FULL, *OTHERS])
    done = show("in.parquet")
    assert len(ids(done)) == 10
    assert done.out.endswith("4 more; --limit 0 shows all\n")
    assert len(ids(show("in.parquet", "--limit", "0"))) == 14
    assert ids(show("in.parquet", "-n", "1", "-g", "g-1")) == ["r-1"]
    assert len(ids(show("in.parquet", "--group", "g-0"))) == 7
    assert show("in.parquet", "-n", "-1").code == 2


def test_nothing_to_show_is_said(show: Show) -> None:
    write_rollouts("in.jsonl", [FULL])
    assert show("in.jsonl", "--group", "none") == (0, "", "none of 1 rows matches\n")
    put("empty.jsonl")
    assert show("empty.jsonl", "--where", "whatever=1") == (0, "", "empty.jsonl has no rows\n")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("statsu=graded", "--where statsu=graded: in.jsonl has no field 'statsu'; did you mean 'status'?"),
        ("sampling_temperature=1", "has no field 'sampling_temperature'"),
        ("reward", "--where reward: expected FIELD OP VALUE"),
        ("=1", "--where =1: expected FIELD OP VALUE"),
        ("status<graded", "--where status<graded: < compares numbers, but status is 'graded'"),
        ("reward<high", "--where reward<high: < compares numbers, but reward is '1.0'"),
    ],
)
def test_a_wrong_condition_is_one_line(show: Show, expression: str, message: str) -> None:
    write_rollouts("in.jsonl", [FULL])
    done = show("in.jsonl", "--where", expression)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_conditions_are_nothing_but_comparisons() -> None:
    each = condition("__import__('os').system('x')~y")
    assert (each.field, each.op, each.value) == ("__import__('os').system('x')", "~", "y")
    with pytest.raises(RequestError):
        condition("")
    assert not condition("x=null").holds("null")
    assert not condition("x!=1").holds(None)
    assert condition("x=0.10").holds("0.10")
    assert not condition("x=0.1").holds("0.10")  # text is compared as text
    assert condition("x=1e0").holds(1)
    assert not condition("x=1").holds(True)
    assert condition("x>1").holds("1.5")
    assert condition("x~1").holds([1, 2])
    assert condition("x<=y=z").value == "y=z"


# --- what somebody else wrote ---------------------------------------------------------------------------------------

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07 \r\x08\x7f \x9b31m \u202egnp.exe \u200b \u2028 \ud800 \U000e0041 fine é 数 \u3000🙂\t."
)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_completion_cannot_steer_the_terminal(tmp_path: Path, encoding: str) -> None:
    row = {
        "completion": HOSTILE,
        "prompt": [{"role": HOSTILE, "content": HOSTILE}],
        "id": HOSTILE,
        "answer": HOSTILE,
        "group_id": HOSTILE,
        "finish_reason": HOSTILE,
        "scores": [score(HOSTILE, reason=HOSTILE, extracted=HOSTILE + "\n--- line 9")],
    }
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    done = subprocess.run(
        [sys.executable, "-m", "rlvr", "show", "in.jsonl"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    assert not set(shown) & set("\x1b\x07\r\x08\x7f\x9b\u202e\u200b\u2028\ud800\U000e0041")
    assert "\\x1b[2J" in shown
    assert "\\u202egnp.exe" in shown
    assert sum(line.startswith("--- ") for line in shown.split("\n")) == 1
    if encoding == "utf-8":
        assert "fine é 数 \u3000🙂\t." in shown


@given(st.text(st.characters()), st.sampled_from(["utf-8", "ascii", None]))
def test_any_text_can_be_printed(text: str, encoding: str | None) -> None:
    shown = printable(text, encoding)
    shown.encode(encoding or "utf-8")
    assert all(character.isprintable() or character in "\n\t\u3000" or character.isspace() for character in shown)
    assert "\r" not in shown


def test_long_texts_lose_their_middle_unless_asked(show: Show) -> None:
    put("in.jsonl", {"completion": "a" * LONG + "b" * LONG})
    done = show("in.jsonl")
    assert f"[{LONG:,} characters left out; --full shows them]" in done.out
    assert len(done.out) < LONG + 200
    assert "a" * LONG + "b" * LONG in show("in.jsonl", "--full").out


@pytest.mark.parametrize(
    "row",
    [
        {"schema_version": 1, "task": 5, "policy_versions": ["x"], "messages": "[[", "loss_mask": 3, "scores": 7},
        {
            "schema_version": 1,
            "messages": '["a"]',
            "sampling": [],
            "policy_versions": [{}],
            "index": "a",
            "scores": [5],
        },
        {"completion": 5, "scores": "x", "policy_versions": 4, "prompt": {"a": 1}, "id": [1], "group_id": {}},
        {"completion": None, "scores": [{"reward": "x", "seconds": "y"}], "index": 1, "group_size": 2, "group_id": 0},
    ],
)
def test_a_damaged_row_is_shown_as_it_is(show: Show, row: dict[str, Any]) -> None:
    put("in.jsonl", row)
    done = show("in.jsonl", "--where", "id!=nothing", "--where", "version=1")
    assert done.code == 0
    assert show("in.jsonl").out.startswith("--- line 1")


def test_files_that_cannot_be_read_are_one_line(show: Show) -> None:
    put("new.jsonl", {"schema_version": 9, "id": "a"})
    Path("bad.jsonl").write_text("{\n")
    Path("bad.parquet").write_text("no")
    pq.write_table(pa.table({"schema_version": ["x"]}), "text.parquet")
    for file, message in [
        ("none.jsonl", "none.jsonl does not exist"),
        ("new.jsonl", "new.jsonl, line 1 was written with version 9"),
        ("bad.jsonl", "bad.jsonl, line 1 is not JSON"),
        ("bad.parquet", "bad.parquet is not a Parquet file"),
        ("text.parquet", "text.parquet, row 1: schema_version is 'x'"),
    ]:
        done = show(file)
        assert done.code == 2
        assert done.err.startswith(f"rlvr: {message}")
        assert done.err.count("\n") == 1


def test_a_reader_that_goes_away_is_told_nothing(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"completion": "x"}\n' * 20_000)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rlvr show in.jsonl --limit 0 | head -1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("--- line 1\n", "")


def test_parts_of_a_verdict_have_a_line_each(show: Show) -> None:
    parts = [
        {"name": "form", "status": "graded", "reward": 1.0},
        {"name": "answer", "status": "unparsed", "reason": "no box"},
    ]
    put("parts.jsonl", {"completion": "c", "scores": [score("graded", 0.2, parts=parts)]})
    said = show("parts.jsonl").out
    assert "verdict graded 0.2, by math 1, 0.013 s\n    form: graded 1.0\n    answer: unparsed, no box\n" in said
