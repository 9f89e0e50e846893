"""Every recipe trains the embedded model, through the configuration that `rlvr train --recipe` makes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from rlvr.config import command_line_settings, resolve
from rlvr.loop import Run
from rlvr.plan import make_plan
from rlvr.registry import registry
from rlvr.rundir import RunDirectory

RECIPES = [entry.name for entry in registry().entries("recipe")]
TINY = {
    "sampling.prompts_per_step": 4,
    "sampling.group_size": 4,
    "verifier.workers": 0,
    "eval.questions": 0,
    "steps": 2,
    "model.device": "cpu",
}


class Silent:
    def step(self, metrics: object, total: int) -> None:
        """Says nothing."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(name: str, tmp_path: Path) -> None:
    config = resolve(command_line_settings([f"recipe={name}"], {key: (key, value) for key, value in TINY.items()}))
    assert config.trainer.options["lr"] == 5e-5, "the embedded model's, which no recipe touches"
    with make_plan(config) as plan, RunDirectory.create(tmp_path / "run", config) as directory:
        run = Run(plan, directory, Silent())
        assert run.train().finished
        updates = plan.options.updates_per_batch
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["policy_version"] for line in lines] == [updates, 2 * updates]
    for line in lines:
        assert math.isfinite(line["train/loss"])
        assert line["train/grad_norm"] > 0
    assert lines[1]["lag/max"] == (2 * updates - 1 if plan.options.push_every > 1 else updates - 1)
