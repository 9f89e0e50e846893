"""Ctrl-C is answered at once, with a message about what is kept.

The commands are real processes. They block in a verifier that reads a named pipe: what they print before the test opens
it is printed while work is under way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")

# Processes in the background of a shell, such as a test suite, ignore Ctrl-C, and so do their children.
LISTENING = partial(signal.signal, signal.SIGINT, signal.default_int_handler)

WAITS = """
import os
import rlvr

def wait():
    os.write(1, b"waiting\\n")  # a print would go to standard error
    with open("go") as pipe:  # until the test writes
        pipe.read()

@rlvr.verifier(name="waits", version="1", needs_answer=False)
def check(completion, task):
    wait()
    return 1.0
"""
STUCK = f"{WAITS}\nwait()  # the module cannot be loaded\n"
SMALL = [
    *("train", "--steps", "3", "--group-size", "2", "--prompts-per-step", "1", "--max-tokens", "4", "--out", "run"),
    *("--set", "eval.questions=0", "--set", "verifier.workers=0", "--device", "cpu", "--verifier", "waits.py:check"),
]


class Process:
    """`rlvr` in a process of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=LISTENING,
        )  # fmt: skip

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, text: str) -> str:
        """Read standard output up to the line that is `text`."""
        return self._read(self.process.stdout, text)

    def error_until(self, text: str) -> str:
        """Read standard error up to the line that is `text`."""
        return self._read(self.process.stderr, text)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Exit code, and what is left of standard output and error."""
        out, error = self.process.communicate()
        assert "Traceback" not in error
        return self.process.returncode, out, error

    def _read(self, stream, text: str) -> str:
        before = []
        for line in stream:
            if line == f"{text}\n":
                return "".join(before)
            before.append(line)
        raise AssertionError(f"ended before {text!r}: {''.join(before)}{self.process.communicate()}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "go")
    (tmp_path / "waits.py").write_text(WAITS)
    (tmp_path / "stuck.py").write_text(STUCK)
    (tmp_path / "in.jsonl").write_text('{"id": "a", "completion": "1", "answer": "1"}\n')
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Callable[..., Process]:
    return lambda *arguments: Process(folder, "-m", "rlvr", *arguments)


FINISHING = "rlvr: finishing this step, then saving; press again to stop now"


def let_go(folder: Path) -> None:
    """Let one reader of the pipe go on."""
    (folder / "go").write_text("go")


def test_training_finishes_the_step_and_saves(run: Callable[..., Process], folder: Path) -> None:
    with run(*SMALL) as process:
        process.until("waiting")
        process.interrupt()
        process.error_until(FINISHING)  # the verifier still waits
        let_go(folder)
        process.until("waiting")
        let_go(folder)
        code, out, error = process.end()
    assert (code, error) == (130, "")
    assert "interrupted after 1 steps; continue with: rlvr train --resume run" in out
    assert [each.name for each in (folder / "run" / "checkpoints").iterdir()] == ["step-000001"]


def test_a_second_ctrl_c_stops_training_now(run: Callable[..., Process], folder: Path) -> None:
    with run(*SMALL) as process:
        process.until("waiting")
        process.interrupt()
        process.error_until(FINISHING)
        process.interrupt()
        code, _, error = process.end()
    assert (code, error) == (130, "rlvr: stopped; continue with: rlvr train --resume run\n")
    assert not any((folder / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["score", "in.jsonl", "-v", "stuck.py:check", "-o", "out.jsonl", "--workers", "0"],
        ["check", "verifier", "stuck.py:check", "--workers", "0"],
        ["check", "verifier", "waits.py:check", "--workers", "0"],
        ["train", "--verifier", "stuck.py:check", "--set", "verifier.workers=0"],
        ["diagnose", "in.jsonl", "-m", "embedded", "--temperature", "1", "--verifier", "stuck.py:check"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_other_commands_end_at_once(run: Callable[..., Process], folder: Path, command: list[str]) -> None:
    with run(*command) as process:
        process.until("waiting")
        process.interrupt()
        code, _, error = process.end()
    assert (code, error) == (130, "rlvr: interrupted\n")
    assert sorted(each.name for each in folder.iterdir() if each.name != "__pycache__") == [
        "go", "in.jsonl", "stuck.py", "waits.py"
    ]  # fmt: skip


def test_scoring_keeps_what_is_done(run: Callable[..., Process], folder: Path) -> None:
    (folder / "in.jsonl").write_text('{"completion": "1"}\n{"completion": "2"}\n')
    command = ["score", "in.jsonl", "-v", "waits.py:check", "-o", "out.jsonl", "--workers", "0"]
    with run(*command) as process:
        process.until("waiting")
        let_go(folder)
        process.until("waiting")
        process.interrupt()
        process.error_until("rlvr: interrupted; run the same command again to continue")
        assert process.end()[0] == 130
    assert not (folder / "out.jsonl").exists()
    with run(*command) as process:
        process.until("waiting")
        let_go(folder)
        code, out, error = process.end()
    assert (code, error.splitlines()[-1]) == (0, "rlvr: 1 rows are verified already; continuing")
    assert "waiting" not in out
    assert len((folder / "out.jsonl").read_text().splitlines()) == 2


CLOSING = """
from rlvr.cli.interrupts import answered
with answered("interrupted"):
    try:
        print("working", flush=True)
        open("go").read()
    finally:
        print("closing", flush=True)
        open("go").read()
"""


def test_a_second_ctrl_c_does_not_wait_for_what_is_being_closed(folder: Path) -> None:
    with Process(folder, "-c", CLOSING) as process:
        process.until("working")
        process.interrupt()
        process.until("closing")
        process.interrupt()
        assert process.end() == (130, "", "rlvr: interrupted\n")


def test_a_command_that_ignores_ctrl_c_goes_on_doing_so(folder: Path) -> None:
    """For example, a command in the background of a shell."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    with Process(folder, "-c", f"{code}\n{CLOSING}") as process:
        process.until("working")
        process.interrupt()
        let_go(folder)
        process.until("closing")
        let_go(folder)
        assert process.end() == (0, "", "")
