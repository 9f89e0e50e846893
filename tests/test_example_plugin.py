"""The package under examples/, installed like a third-party plugin: listed, used for scoring and training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "rlvr-plugin-example"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pip_install: Callable[[Path], Path]) -> Path:
    """A folder with the package in it."""
    tree = tmp_path_factory.mktemp("example") / "tree"
    shutil.copytree(EXAMPLE, tree, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    return pip_install(tree)


@pytest.fixture
def rlvr(site: Path, on_path: Callable[[Path], None], cli: Callable[..., Any]) -> Callable[..., str]:
    """Function that runs `rlvr` with the package installed, from an empty folder, and returns its standard output."""
    on_path(site)

    def run(*arguments: str | Path) -> str:
        done = cli(*arguments)
        assert done.code == 0, done.out + done.err
        return str(done.out)

    return run


def test_it_is_listed_with_its_distribution_and_version(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "rlvr", "plugins", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    entries = json.loads(done.stdout)
    found = {
        (e["kind"], e["name"], e["target"])
        for e in entries
        if (e["distribution"], e["version"]) == ("rlvr-wordcount", "0.1.0")
    }
    assert found == {
        ("prompt_source", "word-count", "rlvr_wordcount.prompts:WordCount"),
        ("verifier", "word-count", "rlvr_wordcount.verifier:check"),
    }


def test_it_scores(rlvr: Callable[..., str], tmp_path: Path) -> None:
    rows = [
        ("one two three", "3", "graded", 1.0, None),
        ("one two", "4", "graded", 0.5, "2 words, 4 were asked for"),
        ("one two three", "1", "graded", 0.0, "3 words, 1 were asked for"),
        (" \n", "3", "unparsed", None, "the completion is empty"),
        ("one", "a few", "invalid", None, "the gold 'a few' is not a number of words"),
        ("one", None, "invalid", None, "the row has no gold answer"),
    ]
    lines = [json.dumps({"completion": completion, "answer": answer}) for completion, answer, *_ in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    rlvr("score", "rows.jsonl", "--verifier", "word-count", "--out", "scored.jsonl", "--max-error-rate", "1")
    scored = [json.loads(line)["scores"][-1] for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [(one["status"], one["reward"], one["reason"]) for one in scored] == [row[2:] for row in rows]
    assert {(one["verifier"], one["version"]) for one in scored} == {("word-count", "1")}


def test_its_option_is_an_option(rlvr: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": "one two", "answer": "4"}) + "\n")
    rlvr("score", "rows.jsonl", "--verifier", "word-count", "--option", "partial=false", "--out", "scored.jsonl")
    (score,) = json.loads((tmp_path / "scored.jsonl").read_text())["scores"]
    assert score["reward"] == 0.0


def test_its_verifier_passes_the_bench_with_the_cases_that_it_brings(rlvr: Callable[..., str]) -> None:
    report = json.loads(rlvr("check", "verifier", "word-count", "--threshold", "1", "--json"))
    assert report["passed"]
    assert [one["category"] for one in report["categories"]] == ["exact", "off by one", "too few", "too many"]
    checks = {one["name"]: one["result"] for one in report["checks"]}
    assert checks["attack: several boxes"] == "skip", "it judges the completion as a whole"
    assert checks["hostile completions"] == "pass"


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_it_trains(rlvr: Callable[..., str], tmp_path: Path) -> None:
    words = ("--dataset", "word-count", "--verifier", "word-count")
    model = ("--model", "embedded", "--set", "dataset.max_prompt_tokens=64")
    small = ("--prompts-per-step", "4", "--group-size", "32", "--max-tokens", "16", "--set", "eval.questions=6")
    rlvr("train", *words, *model, "--trainer", "grpo", "--steps", "2", *small, "--out", "run")
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(step["step"], step["policy_version"]) for step in steps] == [(0, 1), (1, 2)]
    assert all(step["signal/groups"] > 0 for step in steps), "there is something to learn"
    assert any(step["reward/mean"] > 0 for step in steps), "one word where two were asked for earns a half"
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["versions"]["rlvr-wordcount"] == "0.1.0"
