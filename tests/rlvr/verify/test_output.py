"""Output of verifiers: attributed, harmless to a terminal, bounded, and never on standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr.verify.output import CHARACTERS, LINES
from rlvr.verify.scoring import score_rows

Run = Callable[..., Any]

TALKING = """
import os, subprocess, sys
print("imported")

def check(completion, task):
    match completion:
        case "print": print("said by print")
        case "stderr": print("said to standard error", file=sys.stderr)
        case "escape": print("a \\x1b]0;title\\x07\\x1b[2J\\u202eb\\rc")
        case "bytes": os.write(1, b"\\xff\\xfe said to descriptor 1\\n")
        case "child": subprocess.run(["echo", "said by a child"], check=True)
        case "long": print("x" * 100_000)
        case "many": print(os.linesep.join(map(str, range(5000))))
        case "unfinished": os.write(1, b"no line end")
        case "crash":
            os.write(2, b"last words\\n")
            os._exit(3)
    return True
"""


@pytest.fixture
def talking(tmp_path: Path) -> str:
    (tmp_path / "talking.py").write_text(TALKING)
    return f"{tmp_path}/talking.py:check"


def said(capsys: pytest.CaptureFixture[str], verifier: str, *completions: str, workers: int = 1) -> list[str]:
    """Return the lines on standard error, after the one about the import; standard output must be empty."""
    rows = [{"completion": completion, "answer": "1"} for completion in completions]
    assert len(list(score_rows(rows, verifier, workers=workers, timeout=60))) == len(rows)
    out, err = capsys.readouterr()
    assert out == ""
    first, *lines = err.splitlines()
    assert first.removeprefix("[talking:check] ") == "imported"
    return lines


@pytest.mark.parametrize(
    ("completion", "line"),
    [
        ("print", "said by print"),
        ("stderr", "said to standard error"),
        ("escape", r"a \x1b]0;title\x07\x1b[2J\u202eb\rc"),
        ("bytes", r"\xff\xfe said to descriptor 1"),
        ("child", "said by a child"),
        ("unfinished", "no line end"),
        ("long", "x" * CHARACTERS + "…"),
    ],
)
def test_a_worker_s_output_is_shown_after_the_verifier_s_name(
    capsys: pytest.CaptureFixture[str], talking: str, completion: str, line: str
) -> None:
    assert said(capsys, talking, completion) == [f"[talking:check] {line}"]


def test_a_worker_s_last_words_are_shown(capsys: pytest.CaptureFixture[str], talking: str) -> None:
    assert said(capsys, talking, "crash") == ["[talking:check] last words"] * 2  # the row is tried twice


def test_the_output_is_bounded_and_says_so(capsys: pytest.CaptureFixture[str], talking: str) -> None:
    lines = said(capsys, talking, "many", "print", "many")
    assert lines[:-1] == [f"[talking:check] {i}" for i in range(LINES - 1)]
    assert lines[-1] == "[talking:check] (it has printed 1,000 lines; further ones are not shown)"


def test_without_workers_it_goes_to_standard_error_too(capsys: pytest.CaptureFixture[str], talking: str) -> None:
    assert said(capsys, talking, "print", "stderr", workers=0) == ["said by print", "said to standard error"]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_standard_output_carries_rows_or_json_and_nothing_else(cli: Run, talking: str, workers: str) -> None:
    Path("rows.jsonl").write_text('{"completion": "print", "answer": "1"}\n{"completion": "escape", "answer": "1"}\n')
    command = ("score", "rows.jsonl", "--verifier", talking, "--workers", workers, "--out")
    rows = cli(*command, "-")
    assert [json.loads(line)["scores"][0]["reward"] for line in rows.out.splitlines()] == [1.0, 1.0]
    assert "said by print" in rows.err
    result = cli(*command, "out.jsonl", "--json")
    assert json.loads(result.out)["scored"] == 2
    assert r"\x1b]0;title" in result.err
    assert "\x1b" not in result.err


def test_a_verifier_does_not_notice_that_standard_error_is_gone(talking: str, tmp_path: Path) -> None:
    """Printing must not fail if nobody reads the pipe, or if standard error is closed."""
    script = """
    from rlvr.verify.scoring import score_rows
    rows = [{"completion": "many", "answer": "1"}] * 20
    print([score.status.value for score in score_rows(rows, REF, workers=1)].count("graded"))
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script.replace("REF", repr(talking))))
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, str(tmp_path / "script.py")]
    gone = subprocess.run(command, stdout=subprocess.PIPE, stderr=write_end, text=True)
    os.close(write_end)
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    assert (gone.stdout, closed.stdout) == ("20\n", "20\n")
