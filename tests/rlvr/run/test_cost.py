"""Cost of a run: sums over its batches, those before a resume included."""

from __future__ import annotations

from pathlib import Path

import pytest

import rlvr
import small_runs
from rlvr.run.cost import Cost, cost_of, cost_so_far

ROW = {"step": 0, "time/step": 4.0, "time/sample": 1.0, "time/train": 2.0}


def test_sums_and_the_expected_time() -> None:
    first = ROW | cost_so_far({}, 8, 100, ROW, 10)
    assert (first["total/samples"], first["total/tokens"], first["seconds/total"], first["seconds/expected"]) == (
        8,
        100,
        4,
        40,
    )
    row = ROW | {"step": 1, "time/step": 2.0}
    second = row | cost_so_far(first, 8, 50, row, 10)
    assert (second["total/tokens"], second["seconds/total"], second["seconds/expected"]) == (150, 6, 30)
    cost = cost_of([first, second])
    assert (cost.samples, cost.tokens, cost.seconds) == (16, 150, 6)
    assert sum(cost.phases.values()) == pytest.approx(cost.seconds)


def test_in_words() -> None:
    phases = {"sampling": 60.0, "training": 39.9, "scoring": 0.1}
    assert Cost(1234, 56789, 100.0, phases).text == "1:40, 1,234 completions, 56,789 tokens; sampling 60%, training 40%"
    assert Cost(0, 0, 3725.0, {}).text == "1:02:05, 0 completions, 0 tokens"
    assert cost_of([]).text == "0:00, 0 completions, 0 tokens"


def test_a_resumed_run_counts_on(tiny_model: Path, tmp_path: Path) -> None:
    settings = {**small_runs.SMALL, "model": tiny_model, "steps": 1, "eval.questions": 0, "sampling.max_tokens": 3}
    first = rlvr.train(settings, out=tmp_path / "run").cost
    both = rlvr.train(resume=tmp_path / "run", overrides={"steps": 2}).cost
    assert (first.samples, both.samples) == (12, 24)
    assert both.tokens > first.tokens > 0
    assert both.seconds > first.seconds > 0
