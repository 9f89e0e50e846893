"""Damaged files, loops of links, names too long: one line of error, never a traceback, whatever the command."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Cli = Callable[..., Any]
CHECK = "def check(completion, task): return completion == task.answer\n"
READERS = [
    ("score", "FILE", "--verifier", "check.py:check", "--workers", "0", "--out", "out.jsonl"),
    ("show", "FILE"),
    ("compare", "FILE"),
    ("eval", "FILE"),
]


@pytest.fixture
def folder(cli: Cli, tmp_path: Path) -> Path:
    (tmp_path / "check.py").write_text(CHECK)
    return tmp_path


def invalid_utf8(path: Path) -> None:
    """Return a column of strings, the second of which is not valid UTF-8."""
    offsets, data = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, data])
    pq.write_table(pa.table({"completion": column, "answer": ["a", "b"], "id": ["1", "2"]}), path)


def refused(cli: Cli, command: tuple[str, ...], file: str) -> str:
    done = cli(*(file if each == "FILE" else each for each in command))
    assert done.code == 2, done.err
    assert done.err.startswith("rlvr: ")
    assert done.err.count("\n") == 1
    err: str = done.err
    return err


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_parquet_with_invalid_utf8(cli: Cli, folder: Path, command: tuple[str, ...]) -> None:
    invalid_utf8(folder / "rows.parquet")
    said = refused(cli, command, "rows.parquet")
    assert "rows.parquet, row 2: column 'completion' cannot be read: 'utf-8' codec can't decode byte 0xff" in said


def test_questions_with_invalid_utf8(cli: Cli, folder: Path) -> None:
    invalid_utf8(folder / "questions.parquet")
    options = ("--workers", "0", "--limit", "1")
    done = cli("check", "verifier", "check.py:check", "--dataset", "questions.parquet", *options)
    assert done.code == 2
    assert "questions.parquet: column 'completion' cannot be read: " in done.err
    assert "Invalid UTF8 sequence at string index 1" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_loop_of_links(cli: Cli, folder: Path, command: tuple[str, ...]) -> None:
    os.symlink("b.jsonl", "a.jsonl")
    os.symlink("a.jsonl", "b.jsonl")
    assert "a.jsonl cannot be read: Too many levels of symbolic links" in refused(cli, command, "a.jsonl")


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_name_that_is_too_long(cli: Cli, folder: Path, command: tuple[str, ...]) -> None:
    assert "cannot be read: File name too long" in refused(cli, command, "x" * 300 + ".jsonl")


def test_other_paths_that_are_loops_or_too_long(cli: Cli, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"completion": "1", "answer": "1"}\n')
    os.symlink("loop", "loop")
    long = "x" * 300
    commands = [
        ("plot", "loop"),
        ("plot", long),
        ("train", "--resume", "loop"),
        ("train", "--resume", long),
        ("train", "--config", "loop"),
        ("train", "--config", long),
        ("train", "--dataset", f"{long}.jsonl", "--model", "./nowhere"),
        ("score", "rows.jsonl", "-v", "check.py:check", "--workers", "0", "--out", f"loop/{long}.jsonl"),
        ("score", "rows.jsonl", "-v", "check.py:check", "--workers", "0", "--out", f"{long}.jsonl"),
        ("score", "rows.jsonl", "-v", "check.py:check", "--workers", "0", "--out", f"{long}/"),
        ("score", "rows.jsonl", "-v", f"{long}.py:check", "--workers", "0", "--out", "out.jsonl"),
        ("check", "verifier", "check.py:check", "--cases", "loop"),
        ("check", "verifier", "check.py:check", "--cases", long),
    ]
    for command in commands:
        done = cli(*command)
        assert done.code in (1, 2), command
        assert done.err.startswith("rlvr: "), command


def test_a_name_of_255_bytes_can_be_read_written_and_continued(cli: Cli, folder: Path) -> None:
    """The limit is in bytes; each of these characters has three."""
    name, other = "題" * 83 + ".jsonl", "題" * 82 + "目.jsonl"
    assert len(name.encode()) == 255
    Path(name).write_text('{"completion": "1", "answer": "1"}\n')
    arguments = ("--verifier", "check.py:check", "--workers", "0", "--out", "out/")
    assert cli("score", name, *arguments).code == 0
    assert json.loads(Path("out", name).read_text())["scores"][0]["reward"] == 1.0
    assert cli("score", name, *arguments[:-1], other).code == 0
    assert sorted(os.listdir("out")) == [name], "no journal and no temporary file is left"


def test_a_folder_that_vanishes_under_the_work(cli: Cli, folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "removing.py").write_text(
        "import shutil\nfrom pathlib import Path\n"
        "def check(completion, task):\n"
        "    return shutil.rmtree(Path(__file__).with_name('out'), ignore_errors=True) is None\n"
    )
    (folder / "rows.jsonl").write_text('{"completion": "a", "answer": "a"}\n')
    done = cli("score", "rows.jsonl", "--verifier", "removing.py:check", "--workers", "1", "--out", "out/out.jsonl")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.endswith(": No such file or directory\n")


@pytest.mark.parametrize("seconds", ["inf", "1e308", "nan", "0"])
def test_time_limits_without_sense(cli: Cli, folder: Path, seconds: str) -> None:
    (folder / "rows.jsonl").write_text('{"completion": "a", "answer": "a"}\n')
    said = refused(cli, (*READERS[0], "--timeout", seconds), "rows.jsonl")
    assert "expected seconds, more than 0 and at most 1,000,000" in said


def test_a_name_with_a_line_end_cannot_pose_as_a_message(cli: Cli, folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"completion": "a", "answer": "a"}\n')
    command = ("score", "rows.jsonl", "--verifier", "check.py:check", "--workers", "0", "--out", "a\nrlvr: b.jsonl")
    assert cli(*command).out.endswith("written to a\\nrlvr: b.jsonl\n")


def test_a_file_named_twice_by_different_spellings_is_given_twice(cli: Cli, folder: Path) -> None:
    Path("rows.jsonl").write_text('{"completion": "1", "answer": "1"}\n')
    os.symlink("rows.jsonl", "link.jsonl")
    os.mkdir("sub")
    for spelling in ("./rows.jsonl", "sub/../rows.jsonl", str(folder / "rows.jsonl"), "link.jsonl", "row*.jsonl"):
        done = cli("score", "rows.jsonl", spelling, "-v", "check.py:check", "--workers", "0", "--out", "out.jsonl")
        assert done.code == 2
        assert "is given twice" in done.err, spelling


STEP = '{"step": 0, "reward/mean": 0.5, "signal/groups": 1.0, "alarms": []}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STEP + "{broken\n" + STEP, "metrics.jsonl, line 2 is not JSON: "),
        (STEP + "[]\n" + STEP, "metrics.jsonl, line 2 is not the metrics of a step"),
        (STEP + '{"step": "one"}\n', "metrics.jsonl, line 2 is not the metrics of a step"),
        (STEP + '{"step": 1, "alarms": [5]}\n', "`alarms` is not a list of alarms"),
        (STEP + "\udcff\n", "metrics.jsonl, line 2 is not UTF-8"),
        (STEP[:-1], "holds no step yet"),
    ],
)
def test_bad_metrics_cannot_be_plotted(cli: Cli, folder: Path, text: str, message: str) -> None:
    Path("metrics.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = cli("plot", "metrics.jsonl", "--out", "page.svg")
    assert (done.code, message in done.err) == (2, True), done.err


def test_a_log_without_a_last_newline_is_read_up_to_its_last_whole_line(cli: Cli, folder: Path) -> None:
    Path("metrics.jsonl").write_text(STEP + STEP.replace('"step": 0', '"step": 1') + '{"step": 2, "rew')
    assert cli("plot", "metrics.jsonl", "--out", "page.svg").code == 0
