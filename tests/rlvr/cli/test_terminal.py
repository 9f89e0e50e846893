"""Nothing that rlvr prints can steer a terminal, whatever the source of the text."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlvr.run.reporting import ProgressLines
from rlvr.terminal import NeutralStream, one_line, printable

Cli = Callable[..., Any]
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\x08"
SEEN = "\\x1b]0;owned\\x07"
SMALL = ["--steps", "1", "--group-size", "2", "--prompts-per-step", "2", "--max-tokens", "4", "--device", "cpu"]
VERIFIER = f"""
import logging, os
import rlvr

EVIL = {EVIL!r}

@rlvr.verifier(name="x" + EVIL, version=EVIL, needs_answer=False, answer_form=None)
def check(completion, task, *, option: str = ""):
    logging.getLogger("rlvr").warning("a log %s", EVIL)
    reason = EVIL + (completion or "")
    return rlvr.Verdict(status="graded", reward=float(len(reason) % 2), extracted=EVIL, reason=reason)
"""


def harmless(text: str) -> bool:
    controls = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return all(each in "\n\t" or unicodedata.category(each) not in controls for each in text)


@pytest.fixture
def folder(cli: Cli, tmp_path: Path) -> Path:
    """A verifier and files of rows whose every text is hostile."""
    (tmp_path / "evil.py").write_text(VERIFIER)
    rows = [{"id": f"{i}{EVIL}", "prompt": EVIL, "completion": f"{EVIL}{i}", "group_id": EVIL} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row | {EVIL: EVIL}) + "\n" for row in rows))
    (tmp_path / f"{EVIL}.jsonl").write_text((tmp_path / "rows.jsonl").read_text())
    (tmp_path / "bad.jsonl").write_text(json.dumps({EVIL: 1}) + "\n")
    step: Mapping[str, Any] = {"step": 0, EVIL: 1.0, "alarms": [{"alarm": EVIL}]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(step) + "\n")
    return tmp_path


SCORE = ("score", "rows.jsonl", "-v", "evil.py:check", "--workers", "0", "--out")
PRINTED = [
    ("show", "rows.jsonl"),
    ("show", "rows.jsonl", "--where", f"id={EVIL}"),
    ("score", f"{EVIL}.jsonl", "rows.jsonl", "-v", "evil.py:check", "--workers", "0", "--out", "again/"),
    ("score", "rows.jsonl", "-v", f"{EVIL}.py:check", "--out", "again.jsonl"),
    (
        "score",
        "bad.jsonl",
        "-v",
        "evil.py:check",
        "--workers",
        "0",
        "--map",
        "completion=completio",
        "--out",
        "a.jsonl",
    ),
    ("score", "rows.jsonl", "-v", "evil.py:check", "--option", f"{EVIL}=1", "--out", "again.jsonl"),
    ("compare", "rows.jsonl"),
    ("compare", "rows.jsonl", f"{EVIL}.jsonl"),
    ("plot", "metrics.jsonl", "--metrics", f"{EVIL}x", "--out", "page.svg"),
    ("train", "--dataset", f"{EVIL}.jsonl", "--model", "nowhere"),
    ("train", "--set", f"trainer.{EVIL}=1"),
    ("train", "--recipe", f"{EVIL}.yaml"),
    ("train", "--resume", EVIL),
    ("check", "verifier", "evil.py:check", "--workers", "0"),
    ("recipes", "show", EVIL),
    ("settings", EVIL),
]


@pytest.mark.parametrize("command", PRINTED, ids=lambda command: f"{command[0]} {command[1][:12]!a}")
def test_what_a_command_prints_is_harmless(cli: Cli, folder: Path, command: tuple[str, ...]) -> None:
    done = cli(*command)
    assert harmless(done.out + done.err), (done.out, done.err)
    assert done.out + done.err


def test_hostile_texts_are_shown_as_escapes(cli: Cli, folder: Path) -> None:
    scored = cli(*SCORE, "scored.jsonl")
    shown = cli("show", "scored.jsonl")
    assert harmless(scored.out + scored.err + shown.out + shown.err)
    assert SEEN in scored.err, "the log"
    for text in ("id 0", "group ", "by x", "extracted "):
        assert f"{text}{SEEN}" in shown.out
    assert f"\nrlvr: a log {SEEN}" in scored.err


def test_an_error_is_one_line_whatever_it_repeats(cli: Cli, folder: Path) -> None:
    done = cli("show", f"{EVIL}\nrlvr: all is well.jsonl")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert harmless(done.err)


def test_a_dry_run_is_harmless(cli: Cli, folder: Path, awkward_model: Path) -> None:
    row = {"question": f"What is {EVIL}?", "answer": f"2{EVIL}", "id": EVIL}
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(8)))
    options = ["--set", "dataset.options.id=id", "--set", "eval.questions=0", *SMALL]
    command = (
        *("train", "--dry-run", "--model", str(awkward_model), "--dataset", "questions.jsonl"),
        *("--verifier", "evil.py:check", "--set", "verifier.workers=0", *options),
    )
    done = cli(*command)
    assert done.code == 0, done.err
    assert harmless(done.out + done.err)
    assert f"verified by x{SEEN}" in done.out
    (folder / "evil.py").write_text(VERIFIER.replace("reason = EVIL", 'reason = "broken\\nrlvr: all is well" + EVIL'))
    assert r"broken\nrlvr: all is well" in cli(*command).out


def test_the_progress_of_a_run_is_harmless_in_python_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = ProgressLines()
    lines.start(f"grpo on {EVIL}", tmp_path / EVIL)
    lines.note(f"a note{EVIL}\nwith a second line")
    lines.end(f"1 alarm: {EVIL}")
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert printed.count("\n") == 4


PROGRESS = """
import sys
from rlvr.cli.progress import progress_of
from rlvr.terminal import neutral_streams
with neutral_streams(), progress_of(10) as shown:
    shown.advance(3, sys.argv[1], {"graded": 3})
    print("a print " + sys.argv[1], file=sys.stderr)
"""


def test_a_progress_bar_draws_itself_and_nothing_else(tmp_path: Path) -> None:
    """On a real terminal: the bar's own escapes are those of `rich`, none is from the file's name."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", PROGRESS, EVIL], stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            printed += chunk
    except OSError:  # the terminal's other end is closed
        pass
    assert done.wait() == 0
    os.close(ours)
    assert b"\x1b[" in printed, "it is a bar"
    assert b"owned" in printed
    assert b"\x1b]0;" not in printed
    assert b"\x1b[2J" not in printed
    assert "\u202e".encode() not in printed


def test_a_neutral_stream_leaves_bytes_and_all_else_as_they_are() -> None:
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    stream = NeutralStream(raw)
    stream.writelines(["a\x1b", "é\t日\n"])
    stream.flush()
    stream.buffer.write(b"\x1b")
    assert raw.buffer.getvalue() == b"a\\x1b" + "é\t日\n".encode() + b"\x1b"  # type: ignore[attr-defined]
    assert stream.encoding == "utf-8"
    assert one_line("a\nb\x00") == "a\\nb\\x00"
    assert printable("a\nb\x00") == "a\nb\\x00"
