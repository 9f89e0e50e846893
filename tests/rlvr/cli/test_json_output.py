"""`--json`: every command has it, and prints one JSON document and nothing else on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from rlvr.cli import app
from rlvr.cli.json_output import print_json
from rlvr.record.schema import Rollout, Score, Task
from rlvr.record.store import write_rollouts

Run = Callable[..., Any]


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            if command.invoke_without_command:
                yield f"{prefix}{name}", command
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


@pytest.fixture
def files(cli: Run) -> Run:
    """The command line in a folder with scored rollouts, a verifier, metrics of a run and questions."""
    scores = (
        Score(status="graded", reward=1.0, verifier="math", version="1"),
        Score(status="graded", reward=0.0, verifier="other", version="1"),
    )
    task = Task(answer="1")
    rows = [
        Rollout(id=f"{i}", group_id=f"{i % 2}", prompt="p", completion=f"\\boxed{{{i}}}", task=task, scores=scores)
        for i in range(4)
    ]
    write_rollouts("in.jsonl", rows)
    Path("mine.py").write_text("def same(completion, task): return completion == task.answer\n")
    Path("metrics.jsonl").write_text("".join(json.dumps({"step": i, "reward/mean": i / 2}) + "\n" for i in range(3)))
    return cli


SHORT = ["--steps", "1", "--prompts-per-step", "2", "--group-size", "2", "--set", "eval.questions=0", "--device", "cpu"]

REQUESTS: dict[str, tuple[list[str], str]] = {
    "score": (["in.jsonl", "-v", "mine.py:same", "--out", "out.jsonl", "--workers", "0"], "scored"),
    "compare": (["in.jsonl"], "matrix"),
    "show": (["in.jsonl", "--limit", "2"], "rows"),
    "export": (["in.jsonl", "--to", "sft", "-v", "math", "--out", "sft.jsonl"], "left_out"),
    "plot": (["metrics.jsonl", "--out", "plot.svg"], "panels"),
    "plugins": ([], ""),
    "settings": (["trainer"], ""),
    "recipes": ([], ""),
    "recipes show": (["dapo"], "composition"),
    "recipes parts": ([], ""),
    "train": ([*SHORT, "--dry-run"], "first_prompt"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_standard_output_is_one_json_document(files: Run, name: str) -> None:
    arguments, key = REQUESTS[name]
    done = files(*name.split(), *arguments, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (key in found) if key else isinstance(found, list)


def test_a_run_prints_its_progress_elsewhere(files: Run) -> None:
    done = files("train", *SHORT, "--out", "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["checkpoint"] == "run/checkpoints/step-000001"
    assert "run directory: run" in done.err
    assert "step 1/1" in done.err


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": "é"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"a": None, "b": "é"}
