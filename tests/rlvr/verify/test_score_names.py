"""All commands find a score by a verifier's name, a variant, or a function in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small_runs
from rlvr.record.schema import Score, Status
from rlvr.record.store import read_rollouts, write_rollouts

MINE = """
import rlvr

@rlvr.verifier(name="short", version="1")
def check(completion, task, *, limit):
    return len(completion) < limit

def plain(completion, task):
    return 1.0

def unused(completion, task):
    return 0.0
"""
NAMES = ("math", "math@strict", "short", "short@strict", "mine:plain")

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def scored(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twelve records of one step: all have a score by the first of `NAMES`, eleven by the second, and so on."""
    folder: Path = tmp_path_factory.mktemp("scored")
    small_runs.start(small_runs.small_config(tiny_model, steps=1, eval__questions=0), folder / "run")
    rollouts = list(read_rollouts(folder / "run" / "rollouts"))
    for missing, name in enumerate(NAMES):
        for i in range(len(rollouts) - missing):
            score = Score(status=Status.GRADED, reward=float(i % 2), verifier=name, version="1")
            rollouts[i] = rollouts[i].with_score(score)
    write_rollouts(folder / "scored.parquet", rollouts)
    return folder / "scored.parquet"


@pytest.fixture(params=["compare", "diagnose", "train"])
def ask(request: pytest.FixtureRequest, cli: Callable[..., Any], scored: Path, tiny_model: Path) -> Ask:
    """Request the scores by a verifier from a command; return the name that it found, or its error."""
    Path("mine.py").write_text(MINE)
    model = ("--model", str(tiny_model), "--device", "cpu")

    def compare(verifier: str) -> Any:
        done = cli("compare", str(scored), "--a", "digits", "--b", verifier, "--json")
        return done if done.code else json.loads(done.out)["b"]["verifier"]

    def diagnose(verifier: str) -> Any:
        done = cli("diagnose", str(scored), "--verifier", verifier, *model, "--json")
        if done.code:
            return done
        found = json.loads(done.out)
        assert f"--verifier {verifier}" in found["advice"]["command"], "the next command is asked in the same words"
        return NAMES[12 - found["usable"]]

    def train(verifier: str) -> Any:
        files = ("--rollouts", str(scored), "--skip-unusable", "--set", "eval.questions=0")
        done = cli("train", *files, "--verifier", verifier, *model, "--dry-run")
        return done if done.code else done.out.partition("scores by ")[2].partition(": 1 step ")[0]

    return {"compare": compare, "diagnose": diagnose, "train": train}[request.param]


@pytest.mark.parametrize(
    ("verifier", "name"),
    [
        ("math", "math"),
        ("math@strict", "math@strict"),
        ("mine.py:check", "short"),
        ("mine.py:check@strict", "short@strict"),
        ("mine.py:plain", "mine:plain"),
        ("mine:plain", "mine:plain"),
    ],
)
def test_a_name_a_variant_and_a_function_in_a_file_are_found(ask: Ask, verifier: str, name: str) -> None:
    assert ask(verifier) == name


THERE = "digits (12), math (12), math@strict (11), mine:plain (8), short (10), short@strict (9)"


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("maht", f"no score by 'maht'; the scores there are by: {THERE}"),
        ("math@lax", f"no score by 'math@lax'; the scores there are by: {THERE}"),
        ("mine.py:unused", f"no score by 'mine:unused'; the scores there are by: {THERE}"),
        ("mine.py:chekc", "verifier 'mine.py:chekc': there is no function 'chekc'; did you mean 'check'?"),
        ("gone.py:check", "verifier file gone.py cannot be read: No such file or directory"),
        ("mine.py", "which function of mine.py? Write mine.py:NAME"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(ask: Ask, verifier: str, message: str) -> None:
    done = ask(verifier)
    assert done.code == 2
    assert done.err.endswith(f"{message}\n")
    assert done.err.count("\n") == 1


def test_where_nothing_is_scored_that_is_said(cli: Callable[..., Any], scored: Path, tiny_model: Path) -> None:
    write_rollouts("bare.parquet", [rollout.model_copy(update={"scores": ()}) for rollout in read_rollouts(scored)])
    done = cli("diagnose", "bare.parquet", "--verifier", "math", "--model", str(tiny_model), "--device", "cpu")
    assert (done.code, done.err) == (
        2,
        "rlvr: --verifier math: bare.parquet: no score by 'math'; there are no scores: rlvr score adds them\n",
    )


@pytest.mark.parametrize("verifier", ["math@strict", "mine.py:check@strict"])
def test_a_variant_judges_no_held_out_questions(cli: Callable[..., Any], scored: Path, verifier: str) -> None:
    """Its options are unknown, so a verifier with other options would use its name."""
    Path("mine.py").write_text(MINE)
    done = cli("train", "--rollouts", str(scored), "--verifier", verifier, "--dry-run")
    assert done.code == 2
    assert f"there is no verifier {verifier!r} to score answers with" in done.err
    assert "--set eval.questions=0" in done.err
