"""Every command prints to a terminal without UTF-8: ASCII spellings or escapes, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from rlvr.cli import app
from rlvr.cli.streams import SPELLED

COMPLETION = "α → \\boxed{½} – 日本 \ud800"
ASCII = {"PYTHONIOENCODING": "ascii"}
LATIN = {"PYTHONIOENCODING": "latin-1"}
C = {"LC_ALL": "C", "PYTHONIOENCODING": ""}

SMALL = ["--steps", "1", "--group-size", "2", "--prompts-per-step", "2", "--max-tokens", "4", "--device", "cpu"]
COMMANDS = {
    "train": ["train", *SMALL, "--set", "eval.questions=0", "--out", "run", "--verifier", "mine.py:check"],
    "train --dry-run": ["train", "--dry-run", "--trainer", "grpo-off", "--recipe", "dapo"],
    "score": ["score", "in.jsonl", "-v", "mine.py:check", "-o", "again.jsonl", "--workers", "1"],
    "compare": ["compare", "scored.jsonl"],
    "show": ["show", "scored.jsonl"],
    "diagnose": ["diagnose", "run", "--model", "embedded", "--device", "cpu"],
    "plot": ["plot", "run", "--out", "page.png"],
    "settings": ["settings", "trainer"],
    "plugins": ["plugins"],
    "doctor": ["doctor"],
    "check verifier": ["check", "verifier", "mine.py:check", "--workers", "1", "--cases", "cases.jsonl"],
    "recipes": ["recipes"],
    "recipes show": ["recipes", "show", "dapo"],
    "generate": ["generate", "embedded", "-n", "1", "--limit", "2", "--device", "cpu", "--out", "asked.jsonl"],
    "eval": ["eval", "embedded", "-n", "1", "--limit", "2", "--device", "cpu", "--out", "answers.jsonl"],
    "report": ["report", "run", "--out", "page.html"],
    "serve": ["serve", "embedded", "--print"],
    "recipes parts": ["recipes", "parts"],
    "export-model": ["export-model", "run", "--out", "model"],
    "datasets": ["datasets"],
    "datasets check": ["datasets", "check", "arithmetic", "--limit", "20", "--workers", "1"],
    "new verifier": ["new", "verifier", "fresh"],
    "export": ["export", "scored.jsonl", "--to", "jsonl", "--out", "out.jsonl", "--where", "verifier=mine"],
}
"""A call of each command."""


WITH_TORCH = ("train", "train --resume", "train --dry-run", "diagnose", "generate", "eval", "doctor", "export-model")
"""Commands that import torch, in an order in which each finds what it needs."""
COMMANDS["train --resume"] = [*COMMANDS["train"], "--resume", "run"]  # refused: it names --out

ONE_AFTER_THE_OTHER = """
import json, os, sys
from rlvr.cli import main

for name, arguments in json.load(sys.stdin):
    for stream, kind in ((1, "out"), (2, "err")):
        with open(f"{name}.{kind}", "wb") as file:
            os.dup2(file.fileno(), stream)
    sys.argv = ["rlvr", *arguments]
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush(), sys.stderr.flush()
    with open(f"{name}.code", "w") as file:
        file.write(str(code))
"""
"""A program that runs several commands in one process: importing torch takes longer than any of them."""

Completed: TypeAlias = "subprocess.CompletedProcess[bytes]"


def environment_with(environment: Mapping[str, str]) -> dict[str, str]:
    env = {**os.environ, "COLUMNS": "120", **environment}
    if not env.get("PYTHONIOENCODING"):
        env.pop("PYTHONIOENCODING", None)
    return env


def rlvr(folder: Path, *arguments: str, **environment: str) -> Completed:
    env = environment_with(environment)
    done = subprocess.run([sys.executable, "-m", "rlvr", *arguments], cwd=folder, env=env, capture_output=True)
    assert b"Traceback" not in done.stderr, done.stderr
    return done


def one_after_the_other(folder: Path, names: Sequence[str], **environment: str) -> dict[str, Completed]:
    asked = json.dumps([(name, COMMANDS[name]) for name in names]).encode()
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER]
    subprocess.run(command, cwd=folder, env=environment_with(environment), input=asked, check=True)
    found = {}
    for name in names:
        code, out, err = ((folder / f"{name}.{kind}").read_bytes() for kind in ("code", "out", "err"))
        assert b"Traceback" not in err, err
        found[name] = subprocess.CompletedProcess(COMMANDS[name], int(code), out, err)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with scores by two verifiers, and a small run."""
    path = tmp_path_factory.mktemp("streams")
    (path / "mine.py").write_text(
        "import rlvr\n@rlvr.verifier(name='mine', version='1', needs_answer=False, answer_form=None)\n"
        "def check(completion, task):\n"
        "    return rlvr.Verdict(status='graded', reward=float(len(completion) % 2), reason='π ≥ 3 …')\n",
        encoding="utf-8",
    )
    rows = [{"id": f"é{i}", "prompt": "日本?", "completion": COMPLETION[i:], "answer": "½"} for i in range(3)]
    (path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    cases = [{"gold": "½", "completion": each, "expected": each == "π"} for each in ("π", "日本")]
    (path / "cases.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases))
    two = ["score", "in.jsonl", "-v", "mine.py:check", "-v", "math", "-o", "scored.jsonl", "--workers", "1"]
    assert rlvr(path, *two).returncode == 0
    return path


@pytest.fixture(scope="module")
def with_torch(folder: Path) -> dict[str, Completed]:
    """Outcomes of the commands that import torch; they leave a run in the folder."""
    return one_after_the_other(folder, WITH_TORCH, **ASCII)


def test_every_command_is_called() -> None:
    names = {each.name or each.callback.__name__ for each in app.registered_commands if each.callback is not None}
    groups = {each.name for each in app.registered_groups}
    called = {name.partition(" ")[0].replace("-", "_") for name in COMMANDS}
    assert called == (names | groups) - {"watch"}, "watch serves until Ctrl-C: tests/rlvr/reports/test_watch.py"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train --resume"])
def test_what_a_command_prints_is_ascii(folder: Path, with_torch: dict[str, Completed], name: str) -> None:
    done = with_torch[name] if name in with_torch else rlvr(folder, *COMMANDS[name], **ASCII)
    assert done.returncode in (0, 1), done.stderr  # 1 if a check fails, or the machine lacks something
    assert (done.stdout + done.stderr).isascii()
    assert done.stdout


def test_a_run_prints_ascii(with_torch: dict[str, Completed]) -> None:
    assert with_torch["train --resume"].returncode == 2
    assert with_torch["train --resume"].stderr.isascii()
    assert (with_torch["train"].returncode, with_torch["train"].stderr) == (0, b"")
    assert b"of 2 prompts x 2 completions" in with_torch["train"].stdout


@pytest.mark.parametrize("environment", [ASCII, LATIN, C], ids=["ascii", "latin-1", "LC_ALL=C"])
def test_symbols_of_our_own_are_spelled_and_texts_of_others_escaped(folder: Path, environment: dict[str, str]) -> None:
    symbols = rlvr(folder, "settings", "trainer.beta", **environment)
    assert b"number >= 0  weight of KL(pi || pi_ref)" in symbols.stdout
    texts = rlvr(folder, "show", "scored.jsonl", **environment)
    assert texts.returncode == 0
    assert rb"\u65e5\u672c" in texts.stdout
    assert "é".encode("latin-1") in texts.stdout if environment is LATIN else texts.stdout.isascii()


@pytest.mark.parametrize("arguments", [["shwo"], ["show"], ["show", "nowhere–.jsonl"], ["train", "--recipe", "–"]])
def test_errors_and_help_are_ascii_too(folder: Path, arguments: list[str]) -> None:
    for asked in (arguments, [*arguments[:1], "--help"]):
        done = rlvr(folder, *asked, **ASCII)
        assert (done.stdout + done.stderr).isascii()


def test_every_spelling_is_ascii() -> None:
    assert all(text.isascii() and text and not symbol.isascii() for symbol, text in SPELLED.items())
